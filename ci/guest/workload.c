// SPDX-License-Identifier: GPL-2.0-only
/*
 * workload cpuid|mmap|fork|request|frame|shootdown: for ci/bench.  Print "ready", then for each number N in a line of standard input, do the same N
 * times, and print "did N"; 0 ends it.  What it does: CPUID; map, write and unmap 16 pages; fork, execute a program, and wait for its end; send a
 * byte over the virtio console, and wait for the answer of "workload answer" at its other end; send an Ethernet frame over eth0, and wait for the
 * answer of "workload answer-frames"; make a page that a thread on each processor reads read-only or writable, so that the kernel flushes all TLBs.
 * For the last one, the line goes on with the median of the TSC cycles that the first of these takes, and with the number of interrupts that have
 * flushed TLBs so far.
 * workload answer: answer bytes from standard input until it ends; what else comes from there goes to standard error, and what comes from file
 * descriptor 3 goes to standard output.
 * workload answer-frames: bind the socket /tmp/net.l1, and answer frames from the socket /tmp/net.l2.
 * Exit status 1: something failed.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <x86intrin.h>

#include "shootdown.h"

#define PAGE		4096ul
#define PAGES		16
#define MOST_TURNS	4096ul	/* of shootdown */
#define MOST_CPUS	16
#define REQUEST		1
#define ANSWER		2
/* A type of Ethernet frames that IEEE 802 sets aside for experiments. */
#define FRAME_TYPE	0x88b5

struct frame {
	struct ether_header header;
	unsigned char what, padding[ETH_ZLEN - ETH_HLEN - 1];
};

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
		execl("/proc/self/exe", "workload", "exit", NULL);
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

static int open_eth0(void)
{
	int s = socket(AF_PACKET, SOCK_RAW, htons(FRAME_TYPE));
	struct ifreq ifr = { .ifr_name = "eth0" };
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(FRAME_TYPE) };

	if (s < 0 || ioctl(s, SIOCGIFINDEX, &ifr))
		err(1, "eth0");
	at.sll_ifindex = ifr.ifr_ifindex;
	ifr.ifr_flags = IFF_UP;
	if (ioctl(s, SIOCSIFFLAGS, &ifr) || bind(s, (struct sockaddr *)&at, sizeof(at)))
		err(1, "eth0");
	/* The kernel drops frames before the link is up, which takes up to a second.  Waiting in a loop would cost as much as many turns. */
	for (;;) {
		if (ioctl(s, SIOCGIFFLAGS, &ifr))
			err(1, "eth0");
		if (ifr.ifr_flags & IFF_RUNNING)
			break;
		usleep(10000);
	}
	return s;
}

static void do_frame(void)
{
	static int eth0 = -1;
	struct frame f = { .header.ether_type = htons(FRAME_TYPE), .what = REQUEST };

	if (eth0 < 0)
		eth0 = open_eth0();
	memset(f.header.ether_dhost, 0xff, ETH_ALEN);
	if (send(eth0, &f, sizeof(f), 0) != sizeof(f))
		err(1, "send");
	do {
		if (recv(eth0, &f, sizeof(f), 0) != sizeof(f))
			err(1, "recv");
	} while (f.what != ANSWER);
}

static volatile char *shared_page;
static volatile unsigned long reads[MOST_CPUS];
static long cpus;
static uint64_t took[MOST_TURNS];
static unsigned long nr_took;

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "sched_setaffinity");
}

static void *read_page(void *cpu)
{
	stay_on((intptr_t)cpu);
	for (;;) {
		(void)*shared_page;
		reads[(intptr_t)cpu]++;
		_mm_pause();
	}
	return NULL;
}

/* Each processor has to have a translation that it must not use any more. */
static void wait_for_readers(void)
{
	for (long cpu = 1; cpu < cpus; cpu++) {
		unsigned long seen = reads[cpu];

		while (reads[cpu] < seen + 2)
			_mm_pause();
	}
}

static void start_readers(void)
{
	pthread_t thread;

	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (cpus > MOST_CPUS)
		errx(1, "%ld processors", cpus);
	shared_page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shared_page == MAP_FAILED)
		err(1, "mmap");
	*shared_page = 1;
	stay_on(0);
	for (long cpu = 1; cpu < cpus; cpu++)
		if (pthread_create(&thread, NULL, read_page, (void *)cpu))
			errx(1, "pthread_create");
}

/* Both changes take a flush.  Measure one of them, as they do not take the same number of instructions. */
static void shoot_down(void)
{
	static int prot = PROT_READ | PROT_WRITE;
	uint64_t begin;

	wait_for_readers();
	begin = __rdtsc();
	prot ^= PROT_WRITE;
	if (mprotect((void *)shared_page, PAGE, prot))
		err(1, "mprotect");
	if (!(prot & PROT_WRITE))
		took[nr_took++ % MOST_TURNS] = __rdtsc() - begin;
}

static void do_shootdown(void)
{
	if (!shared_page) {
		start_readers();
		begin_to_use_invlpgb(shoot_down);
	}
	shoot_down();
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void answer_frames(void)
{
	struct sockaddr_un l1 = { AF_UNIX, "/tmp/net.l1" }, l2 = { AF_UNIX, "/tmp/net.l2" };
	int s = socket(AF_UNIX, SOCK_DGRAM, 0);
	struct frame f;

	unlink(l1.sun_path);
	if (s < 0 || bind(s, (struct sockaddr *)&l1, sizeof(l1)))
		err(1, "%s", l1.sun_path);
	for (;;) {
		if (recv(s, &f, sizeof(f), 0) < 0)
			err(1, "recv");
		if (ntohs(f.header.ether_type) != FRAME_TYPE || f.what != REQUEST)
			continue;
		f.what = ANSWER;
		if (sendto(s, &f, sizeof(f), 0, (struct sockaddr *)&l2, sizeof(l2)) != sizeof(f))
			err(1, "send");
	}
}

/* L2's console, and what is to be passed on to it */
static void answer(void)
{
	struct pollfd fds[] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = 3, .events = POLLIN } };
	char c;

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			err(1, "poll");
		if (fds[0].revents) {
			if (read(STDIN_FILENO, &c, 1) != 1)
				return;
			if (c != REQUEST) {
				write(STDERR_FILENO, &c, 1);
				continue;
			}
			c = ANSWER;
		} else if (read(3, &c, 1) != 1) {
			fds[1].fd = -1;
			continue;
		}
		if (write(STDOUT_FILENO, &c, 1) != 1)
			return;
	}
}

/* Read a number from standard input, which may be the console that the turns read from as well.  Returns 0 at its end. */
static long read_number(void)
{
	long number = 0;
	char c;

	while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n')
		if (c >= '0' && c <= '9')
			number = 10 * number + c - '0';
	return number;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*turn)(void);
	} workloads[] = {
		{ "cpuid", do_cpuid }, { "mmap", do_mmap }, { "fork", do_fork }, { "request", do_request },
		{ "frame", do_frame }, { "shootdown", do_shootdown },
	};
	unsigned int w;
	long turns, i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && !strcmp(argv[1], "exit"))
		return 0;
	if (argc == 2 && !strcmp(argv[1], "answer")) {
		answer();
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "answer-frames"))
		answer_frames();
	for (w = 0; argc == 2 && w < sizeof(workloads) / sizeof(*workloads); w++) {
		if (strcmp(argv[1], workloads[w].name))
			continue;
		printf("ready\n");
		while ((turns = read_number())) {
			nr_took = 0;
			for (i = 0; i < turns; i++)
				workloads[w].turn();
			/* What follows is for shootdown. */
			if (nr_took) {
				qsort(took, MIN(nr_took, MOST_TURNS), sizeof(*took), compare);
				printf("did %ld cycles=%llu guest_ipis=%llu\n", turns, (unsigned long long)took[MIN(nr_took, MOST_TURNS) / 2],
				       (unsigned long long)interrupts("TLB:"));
				continue;
			}
			printf("did %ld\n", turns);
		}
		return 0;
	}
	errx(1, "usage: workload cpuid|mmap|fork|request|frame|shootdown|answer|answer-frames");
}
