/* SPDX-License-Identifier: MIT */
/* What the targets of minigpu's parsers share; see parser.h. */
#include "parser.h"

#include <sys/mman.h>

/* --- Memory: of each block that is allocated and not freed one is counted --------------------------------------------------- */

static long blocks;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t size);
ssize_t __real_getline(char **line, size_t *size, FILE *file);
ssize_t __real___getdelim(char **line, size_t *size, int end, FILE *file); /* what the C library's header may make of getline() */

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);
ssize_t __wrap_getline(char **line, size_t *size, FILE *file);
ssize_t __wrap___getdelim(char **line, size_t *size, int end, FILE *file);
void __wrap_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

void *__wrap_malloc(size_t size)
{
	void *block = __real_malloc(size);
	blocks += block != NULL;
	return block;
}

void *__wrap_calloc(size_t count, size_t size)
{
	void *block = __real_calloc(count, size);
	blocks += block != NULL;
	return block;
}

void *__wrap_realloc(void *block, size_t size)
{
	bool new = block == NULL;
	block = __real_realloc(block, size);
	blocks += new &&block != NULL;
	return block;
}

void __wrap_free(void *block)
{
	blocks -= block != NULL;
	__real_free(block);
}

char *__wrap_strdup(const char *text)
{
	char *copy = __real_strdup(text);
	blocks += copy != NULL;
	return copy;
}

char *__wrap_strndup(const char *text, size_t size)
{
	char *copy = __real_strndup(text, size);
	blocks += copy != NULL;
	return copy;
}

ssize_t __wrap_getline(char **line, size_t *size, FILE *file)
{
	bool new = *line == NULL;
	ssize_t length = __real_getline(line, size, file);
	blocks += new &&*line != NULL;
	return length;
}

ssize_t __wrap___getdelim(char **line, size_t *size, int end, FILE *file)
{
	bool new = *line == NULL;
	ssize_t length = __real___getdelim(line, size, end, file);
	blocks += new &&*line != NULL;
	return length;
}

/* --- Complaints ------------------------------------------------------------------------------------------------------------- */

struct complaints complaints;

void __wrap_complain(const char *format, ...)
{
	va_list args;
	if (complaints.count < COMPLAINTS_MAX) {
		va_start(args, format);
		int length = vsnprintf(complaints.text[complaints.count], COMPLAINT_SIZE, format, args);
		va_end(args);
		must(length > 0 && length < COMPLAINT_SIZE);
	}
	complaints.count++;
}

unsigned long complaint_line(unsigned i)
{
	const char *text = complaints.text[i], *path = parser_path();
	size_t length = strlen(path);
	char *end;
	must(i < complaints.count && i < COMPLAINTS_MAX);
	must(strncmp(text, path, length) == 0 && text[length] == ':');
	must(text[length + 1] >= '1' && text[length + 1] <= '9');
	unsigned long line = strtoul(text + length + 1, &end, 10);
	must(strncmp(end, ": expected ", 11) == 0 && end[11] != '\0');
	return line;
}

/* --- The file --------------------------------------------------------------------------------------------------------------- */

static struct {
	int fd;
	char path[40];
	const void *text;
	size_t size;
} file = { .fd = -1 };

static void open_file(void)
{
	file.fd = memfd_create("text", 0);
	must(file.fd >= 0);
	snprintf(file.path, sizeof(file.path), "/proc/self/fd/%d", file.fd);
}

long parser_begin(const void *text, size_t size)
{
	if (file.fd < 0)
		open_file();
	file.text = text;
	file.size = size;
	must(pwrite(file.fd, text, size, 0) == (ssize_t)size && ftruncate(file.fd, (off_t)size) == 0);
	complaints.count = 0;
	return blocks;
}

void parser_end(long blocks_before)
{
	must(blocks == blocks_before);
}

const char *parser_path(void)
{
	return file.path;
}

void parser_dump(FILE *out)
{
	fprintf(out, "the text, of %zu bytes:\n", file.size);
	fwrite(file.text, 1, file.text == NULL ? 0 : file.size, out);
	fprintf(out, "\nthe parser said:\n");
	for (unsigned i = 0; i < complaints.count && i < COMPLAINTS_MAX; i++)
		fprintf(out, "    %s\n", complaints.text[i]);
	fflush(out);
}

/* --- Texts ------------------------------------------------------------------------------------------------------------------ */

bool next_line(const char **at, const char *end, struct line *ret_line)
{
	const char *newline;
	if (*at == end)
		return false;
	newline = memchr(*at, '\n', (size_t)(end - *at));
	ret_line->text = *at;
	ret_line->size = (size_t)((newline ? newline : end) - *at);
	*at = newline ? newline + 1 : end;
	return true;
}

void print(struct print *p, const char *format, ...)
{
	va_list args;
	for (;;) {
		va_start(args, format);
		int length = vsnprintf(p->text ? p->text + p->size : NULL, p->room - p->size, format, args);
		va_end(args);
		must(length >= 0);
		if (p->size + (size_t)length < p->room) {
			p->size += (size_t)length;
			return;
		}
		p->room = 2 * p->room + (size_t)length + 1000;
		p->text = realloc(p->text, p->room);
		must(p->text != NULL);
	}
}

/* --- Texts made out of others ----------------------------------------------------------------------------------------------- */

/* A text that is being made. */
struct making {
	uint64_t *random;
	const struct fuzz_seeds *seeds;
	const char *const *tokens;
	uint8_t *bytes;
	size_t size, room;
};

static size_t below(struct making *m, size_t limit)
{
	return limit == 0 ? 0 : (size_t)(random_next(m->random) % limit);
}

/* Puts @size bytes in the place of @cut. */
static void splice(struct making *m, size_t at, size_t cut, const void *bytes, size_t size)
{
	if (m->size - cut + size > m->room)
		return;
	memmove(m->bytes + at + size, m->bytes + at + cut, m->size - at - cut);
	memcpy(m->bytes + at, bytes, size);
	m->size += size - cut;
}

/* Some line, with its end. */
static struct line some_line(struct making *m, const uint8_t *bytes, size_t size)
{
	size_t at = below(m, size), end = at;
	while (at > 0 && bytes[at - 1] != '\n')
		at--;
	while (end < size && bytes[end] != '\n')
		end++;
	return (struct line){ (const char *)bytes + at, end + (end < size) - at };
}

static void copy_line(struct making *m)
{
	const struct fuzz_seed *seed = &m->seeds->seed[below(m, m->seeds->count)];
	bool own = m->seeds->count == 0 || below(m, 2) == 0;
	struct line from = own ? some_line(m, m->bytes, m->size) : some_line(m, seed->bytes, seed->size);
	struct line to = some_line(m, m->bytes, m->size);
	char copy[512];
	size_t size = from.size < sizeof(copy) ? from.size : sizeof(copy);
	memcpy(copy, from.text, size);
	splice(m, (size_t)((const uint8_t *)to.text - m->bytes), below(m, 2) == 0 ? to.size : 0, copy, size);
}

static void drop_line(struct making *m)
{
	struct line line = some_line(m, m->bytes, m->size);
	splice(m, (size_t)((const uint8_t *)line.text - m->bytes), line.size, "", 0);
}

static void put_token(struct making *m)
{
	size_t count = 0, at = below(m, m->size + 1);
	while (m->tokens[count] != NULL)
		count++;
	const char *token = m->tokens[below(m, count)];
	size_t cut = below(m, 2) == 0 ? 0 : strlen(token);
	splice(m, at, cut < m->size - at ? cut : m->size - at, token, strlen(token));
}

/* A number, from a digit on, becomes another one: near to it, or at a limit. */
static void change_number(struct making *m)
{
	static const char *const numbers[] = { "0", "1", "4095", "4096", "8192", "2147483647", "2147483648", "4294967296",
		"9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "0x1000",
		"0xfffffffffffff000", "00", "0x" };
	size_t at = below(m, m->size), end;
	while (at < m->size && (m->bytes[at] < '0' || m->bytes[at] > '9'))
		at++;
	if (at == m->size)
		return;
	for (end = at; end < m->size && m->bytes[end] >= '0' && m->bytes[end] <= '9';)
		end++;
	if (below(m, 2) == 0) {
		m->bytes[at + below(m, end - at)] = (uint8_t)('0' + below(m, 10));
		return;
	}
	const char *number = numbers[below(m, sizeof(numbers) / sizeof(numbers[0]))];
	splice(m, at, end - at, number, strlen(number));
}

static void change_byte(struct making *m)
{
	static const char likely[] = "\0\n\r\t ,:=-[]().#x0123456789";
	size_t at = below(m, m->size + 1), cut = at < m->size && below(m, 2) == 0;
	char byte = below(m, 4) == 0 ? (char)below(m, 256) : likely[below(m, sizeof(likely) - 1)];
	splice(m, at, cut, &byte, below(m, 3) != 0);
}

size_t parser_make(uint64_t *random, const struct fuzz_seeds *seeds, const char *const *tokens, uint8_t *bytes, size_t room)
{
	static void (*const changes[])(struct making * m) = { copy_line, drop_line, put_token, change_number, change_number, change_byte };
	struct making m = { random, seeds, tokens, bytes, 0, room };
	if (seeds->count != 0) {
		const struct fuzz_seed *seed = &seeds->seed[below(&m, seeds->count)];
		splice(&m, 0, 0, seed->bytes, seed->size);
	}
	for (size_t n = below(&m, 12); n != 0; n--)
		changes[below(&m, sizeof(changes) / sizeof(changes[0]))](&m);
	if (below(&m, 32) == 0)
		m.size = below(&m, m.size + 1);
	return m.size;
}
