/* SPDX-License-Identifier: MIT */
/*
 * Runs a program under a kernel that lacks a system call.
 *
 *     without membarrier|futex_time64 PROGRAM ARGUMENT...
 *
 * A filter lets the kernel say ENOSYS to that call, in the program and in what it starts. The variable LF_WITHOUT tells the program, so that
 * tests can hold the library to what it does then. Programs for another machine than this one are refused, since their calls have other
 * numbers.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	unsigned number;
} calls[] = {
	{ "membarrier", SYS_membarrier },
#ifdef SYS_futex_time64
	{ "futex_time64", SYS_futex_time64 },
#endif
};

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "without: %s: %s\n", what, why);
	exit(99);
}

static unsigned number_of(const char *name)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (strcmp(calls[i].name, name) == 0)
			return calls[i].number;
	die(name, "this machine has no such call, or nobody can do without it");
}

/* Class and machine of an ELF file: the first bytes, which are alike for all. */
static void read_head(const char *file, unsigned char head[20])
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, head, 20) != 20)
		die(file, "cannot be read");
	close(fd);
}

static void refuse_other_machines(const char *program)
{
	unsigned char ours[20], theirs[20];

	read_head("/proc/self/exe", ours);
	read_head(program, theirs);
	if (memcmp(ours, theirs, EI_CLASS + 1) != 0 || memcmp(ours + 18, theirs + 18, 2) != 0)
		die(program, "is not a program of this machine");
}

static void deny(unsigned number)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		die("seccomp", strerror(errno));
}

int main(int argc, char **argv)
{
	if (argc < 3)
		die("usage", "without CALL PROGRAM ARGUMENT...");
	refuse_other_machines(argv[2]);
	setenv("LF_WITHOUT", argv[1], 1);
	deny(number_of(argv[1]));
	execv(argv[2], argv + 2);
	die(argv[2], strerror(errno));
}
