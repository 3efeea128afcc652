// SPDX-License-Identifier: GPL-2.0-only
/*
 * workload cpuid|mmap|fork|request TURNS: do the same TURNS times, for ci/bench: CPUID; map, write and unmap 16 pages; fork, execute a program,
 * and wait for its end; send a byte over the virtio console, and wait for the answer of "workload answer" at its other end.
 * workload answer: answer until standard input ends.  Exit status 1: something failed.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define PAGE		4096ul
#define PAGES		16
#define REQUEST		1
#define ANSWER		2

static void do_cpuid(void)
{
	unsigned int a = 0, b, c = 0, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
}

static void do_mmap(void)
{
	char *mem = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned long i;

	if (mem == MAP_FAILED)
		err(1, "mmap");
	for (i = 0; i < PAGES; i++)
		mem[i * PAGE] = 1;
	if (munmap(mem, PAGES * PAGE))
		err(1, "munmap");
}

static void do_fork(void)
{
	pid_t child = fork();
	int status;

	if (!child) {
		execl("/proc/self/exe", "workload", "cpuid", "1", NULL);
		_exit(1);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		errx(1, "a child did not run");
}

static void do_request(void)
{
	static int console = -1;
	char c = REQUEST;

	if (console < 0) {
		struct termios t;

		console = open("/dev/hvc0", O_RDWR | O_NOCTTY);
		if (console < 0 || tcgetattr(console, &t))
			err(1, "/dev/hvc0");
		cfmakeraw(&t);
		if (tcsetattr(console, TCSANOW, &t))
			err(1, "/dev/hvc0");
	}
	if (write(console, &c, 1) != 1)
		err(1, "write");
	do {
		if (read(console, &c, 1) != 1)
			err(1, "read");
	} while (c != ANSWER);
}

static void answer(void)
{
	char c;

	while (read(STDIN_FILENO, &c, 1) == 1) {
		if (c != REQUEST)
			continue;
		c = ANSWER;
		if (write(STDOUT_FILENO, &c, 1) != 1)
			return;
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*turn)(void);
	} workloads[] = {
		{ "cpuid", do_cpuid }, { "mmap", do_mmap }, { "fork", do_fork }, { "request", do_request },
	};
	unsigned int i;
	long turns;

	if (argc == 2 && !strcmp(argv[1], "answer")) {
		answer();
		return 0;
	}
	for (i = 0; argc == 3 && i < sizeof(workloads) / sizeof(*workloads); i++) {
		if (strcmp(argv[1], workloads[i].name))
			continue;
		for (turns = atol(argv[2]); turns > 0; turns--)
			workloads[i].turn();
		return 0;
	}
	errx(1, "usage: workload cpuid|mmap|fork|request TURNS, or workload answer");
}
