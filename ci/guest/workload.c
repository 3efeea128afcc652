// SPDX-License-Identifier: GPL-2.0-only
/*
 * workload cpuid|mmap|fork|request|frame TURNS: do the same TURNS times, for ci/bench: CPUID; map, write and unmap 16 pages; fork, execute a
 * program, and wait for its end; send a byte over the virtio console, and wait for the answer of "workload answer" at its other end; send an
 * Ethernet frame over eth0, and wait for the answer of "workload answer-frames".
 * workload shootdown TURNS...: for each number of turns, take away and give back the right to write to a page so many times, while a thread on
 * each other processor reads that page, so that the kernel has to flush their TLBs; print the median of the TSC cycles that taking the right
 * away took, and how many interrupts the kernel has sent to flush TLBs.
 * workload answer: answer until standard input ends.  workload answer-frames: bind the socket /tmp/net.l1, and answer frames from the socket
 * /tmp/net.l2.  Exit status 1: something failed.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096ul
#define PAGES		16
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
	/* The kernel drops frames before the link is up. */
	do {
		if (ioctl(s, SIOCGIFFLAGS, &ifr))
			err(1, "eth0");
	} while (!(ifr.ifr_flags & IFF_RUNNING));
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

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "sched_setaffinity");
}

static volatile char *page;

static void *read_page(void *cpu)
{
	stay_on((intptr_t)cpu);
	for (;;) {
		(void)*page;
		__builtin_ia32_pause();
	}
	return NULL;
}

static uint64_t shoot_down(void)
{
	uint64_t begin, end;

	*page = 1;
	begin = __builtin_ia32_rdtsc();
	if (mprotect((void *)page, PAGE, PROT_READ))
		err(1, "mprotect");
	end = __builtin_ia32_rdtsc();
	if (mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE))
		err(1, "mprotect");
	return end - begin;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The sum of the numbers of a line of /proc/interrupts */
static uint64_t interrupts(const char *name)
{
	char line[1024], *p, *next;
	FILE *f = fopen("/proc/interrupts", "r");
	uint64_t sum = 0, n;

	if (!f)
		err(1, "/proc/interrupts");
	while (fgets(line, sizeof(line), f)) {
		p = strstr(line, name);
		if (!p)
			continue;
		for (p += strlen(name), n = strtoull(p, &next, 10); next != p; p = next, n = strtoull(p, &next, 10))
			sum += n;
	}
	fclose(f);
	return sum;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void shootdowns(int argc, char **argv)
{
	long cpu, cpus = sysconf(_SC_NPROCESSORS_ONLN), turns, t;
	uint64_t *cycles, sent;
	pthread_t thread;
	double begin;

	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		err(1, "mmap");
	*page = 1;
	stay_on(0);
	for (cpu = 1; cpu < cpus; cpu++)
		if (pthread_create(&thread, NULL, read_page, (void *)cpu))
			errx(1, "pthread_create");
	/* Linux looks once in 32 ticks whether a process that flushes should use INVLPGB. */
	for (begin = now(); now() < begin + 1;)
		shoot_down();
	for (; argc; argc--, argv++) {
		turns = atol(*argv);
		cycles = calloc(turns, sizeof(*cycles));
		if (turns < 1 || !cycles)
			errx(1, "%s turns", *argv);
		sent = interrupts("TLB:");
		for (t = 0; t < turns; t++)
			cycles[t] = shoot_down();
		sent = interrupts("TLB:") - sent;
		qsort(cycles, turns, sizeof(*cycles), compare);
		printf("%ld turns, %llu TSC cycles per turn, %llu interrupts\n", turns, (unsigned long long)cycles[turns / 2], (unsigned long long)sent);
		fflush(stdout);
		free(cycles);
		/* Let the reader of this line count before the next turns begin. */
		usleep(300000);
	}
	exit(0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*turn)(void);
	} workloads[] = {
		{ "cpuid", do_cpuid }, { "mmap", do_mmap }, { "fork", do_fork }, { "request", do_request },
		{ "frame", do_frame },
	};
	unsigned int i;
	long turns;

	if (argc == 2 && !strcmp(argv[1], "answer")) {
		answer();
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "answer-frames"))
		answer_frames();
	if (argc > 2 && !strcmp(argv[1], "shootdown"))
		shootdowns(argc - 2, argv + 2);
	for (i = 0; argc == 3 && i < sizeof(workloads) / sizeof(*workloads); i++) {
		if (strcmp(argv[1], workloads[i].name))
			continue;
		for (turns = atol(argv[2]); turns > 0; turns--)
			workloads[i].turn();
		return 0;
	}
	errx(1, "usage: workload cpuid|mmap|fork|request|frame TURNS, workload shootdown TURNS..., or workload answer|answer-frames");
}
