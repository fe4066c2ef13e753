/* SPDX-License-Identifier: MIT */
/*
 * Files of `minigpu hash`: opened a few at a time, read a chunk each in turn, printed in the order of the arguments.
 *
 * Not here: what becomes of a chunk (hash_jobs.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hash.h"

void file_init(struct driver *d, struct file *f, const char *name)
{
	const char *slash = strrchr(name, '/');
	struct stat st;

	if (!stat(name, &st) && S_ISREG(st.st_mode))
		d->expected += (uint64_t)st.st_size;
	*f = (struct file){ .name = name, .fd = -1 };
	f->group = record_add_group(&d->record, slash && slash[1] ? slash + 1 : name);
}

void file_close(struct file *f)
{
	if (f->fd >= 0 && f->fd != STDIN_FILENO)
		close(f->fd);
	f->fd = -1;
}

void file_fail(struct file *f, const char *reason)
{
	if (f->state == FILE_FAILED)
		return;
	complain("%s: %s", f->name, reason);
	f->state = FILE_FAILED;
	file_close(f);
}

/* --- Opening ------------------------------------------------------------------------------------------------------------ */

static bool open_file(struct file *f, enum engine engine)
{
	struct stat st;

	f->fd = strcmp(f->name, "-") ? open(f->name, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (f->fd < 0 || fstat(f->fd, &st)) {
		file_fail(f, strerror(errno));
		return false;
	}
	f->size = S_ISREG(st.st_mode) ? st.st_size : 0;
	f->state = FILE_READING;
	f->engine = engine;
	return true;
}

/* Half of the places for open files belong to each digest engine: that is how files are spread over them. */
static struct file *open_next_file(struct driver *d, unsigned place)
{
	while (d->next_file < d->file_count && !d->lost) {
		struct file *f = &d->files[d->next_file++];

		if (open_file(f, FIRST_DIGEST + place % DIGEST_ENGINES))
			return f;
	}
	return NULL;
}

struct file *file_next(struct driver *d)
{
	for (unsigned tries = 0; tries < OPEN_FILES; tries++) {
		unsigned place = d->turn++ % OPEN_FILES;

		if (!d->open[place] || d->open[place]->state != FILE_READING)
			d->open[place] = open_next_file(d, place);
		if (d->open[place])
			return d->open[place];
	}
	return NULL;
}

/* --- Reading ------------------------------------------------------------------------------------------------------------ */

/* @return bytes, fewer than @size only at the end of the file; -1 with errno. */
static ssize_t read_fully(int fd, unsigned char *buf, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, buf + done, size - done);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n == 0)
			break;
		if (n > 0)
			done += (size_t)n;
	}
	return (ssize_t)done;
}

/* A hash of a file that was cut off while it was read is of no state that the file ever had. (Files in /sys end before their size, and
 * are whole all the same: theirs does not change.) */
static bool file_shrank(const struct file *f)
{
	struct stat st;

	return f->bytes < (uint64_t)f->size && (fstat(f->fd, &st) || st.st_size < f->size);
}

bool file_read(struct chunk *c, size_t block)
{
	struct file *f = c->file;
	ssize_t size = read_fully(f->fd, c->slot, block);

	if (size < 0) {
		file_fail(f, strerror(errno));
		return false;
	}
	c->size = (size_t)size;
	c->last = c->size < block;
	f->bytes += c->size;
	if (c->last && file_shrank(f)) {
		file_fail(f, "file became shorter while it was read");
		return false;
	}
	return true;
}

/* --- Printing ----------------------------------------------------------------------------------------------------------- */

/* Like sha256sum: a name that would break the line is escaped, and a backslash in front of the line says so. */
static void print_hash(const struct file *f)
{
	if (strpbrk(f->name, "\\\n\r"))
		putchar('\\');
	for (unsigned i = 0; i < HASH_SIZE; i++)
		printf("%02x", f->hash[i]);
	fputs("  ", stdout);
	for (const char *c = f->name; *c; c++) {
		if (*c == '\\' || *c == '\n' || *c == '\r')
			printf("\\%c", *c == '\n' ? 'n' : *c == '\r' ? 'r' : '\\');
		else
			putchar(*c);
	}
	putchar('\n');
}

void file_print_finished(struct driver *d)
{
	while (d->printed < d->file_count && d->files[d->printed].state >= FILE_DONE) {
		struct file *f = &d->files[d->printed];

		if (f->state == FILE_DONE && rounds_keep(d->rounds, d->printed, f)) {
			progress_end();
			print_hash(f);
		}
		d->printed++;
	}
	fflush(stdout);
}
