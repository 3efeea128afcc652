// SPDX-License-Identifier: GPL-2.0-only
/*
 * stress-move SEED FILE...: wait until the files exist, then move the pages of this level's guests about until SIGTERM; then print how
 * many pages moved.  Exit status 1: no page was swapped out.
 *
 * Any process with an anonymous mapping of 100 MB or more counts as a guest.  Each step does one of the following: swap pages out, so
 * that others use their frames and the pages come back elsewhere; collapse pages into huge pages, which a later swap-out splits again; or
 * compact memory.  Moved pages are counted with /proc/PID/pagemap, because this kernel does not count page migrations.  The next step is
 * due when the guest has used some CPU time: the clock counts instructions, and runs ahead while the guest waits for disks.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define PAGE		4096ul
#define HUGE		(PAGE * 512)
#define GUEST		(100ul << 20)
#define RANGE		1024		/* pages that one step works on: 4 MB */
#define PRESENT		(1ull << 63)
#define FRAME		((1ull << 55) - 1)

struct guest {
	int pid;
	uint64_t begin, pages;
};

enum { OUT, COLLAPSE, COMPACT, OPS };

static const char * const names[OPS] = { "swapped out", "collapsed", "compacted" };
static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	(void)sig;
	stopped = 1;
}

static int find_guests(struct guest *found, int most)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (proc && n < most && (e = readdir(proc))) {
		char path[300], line[512];
		FILE *maps;

		if (!atoi(e->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/maps", e->d_name);
		maps = fopen(path, "r");
		while (maps && n < most && fgets(line, sizeof(line), maps)) {
			unsigned long begin, end, inode;
			char rights[8];

			if (sscanf(line, "%lx-%lx %7s %*s %*s %lu", &begin, &end, rights, &inode) == 4 &&
			    rights[0] == 'r' && rights[1] == 'w' && !inode && end - begin >= GUEST)
				found[n++] = (struct guest){ atoi(e->d_name), begin, (end - begin) / PAGE };
		}
		if (maps)
			fclose(maps);
	}
	if (proc)
		closedir(proc);
	return n;
}

static long frames(int pid, uint64_t addr, uint64_t *entries)
{
	char path[40];
	long got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	got = pread(fd, entries, RANGE * 8, addr / PAGE * 8);
	close(fd);
	return got == RANGE * 8 ? 0 : -1;
}

static double cpu_time(int pid)
{
	struct timespec t = { 0 };
	clockid_t clock;

	if (!clock_getcpuclockid(pid, &clock))
		clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void compact(void)
{
	int fd = open("/proc/sys/vm/compact_memory", O_WRONLY);

	if (fd >= 0 && write(fd, "1", 1) != 1)
		perror("compact_memory");
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	static uint64_t before[RANGE], after[RANGE];
	struct sigaction act = { .sa_handler = stop };
	uint64_t moved[OPS] = { 0 };
	unsigned int steps = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: stress-move SEED FILE...\n");
		return 2;
	}
	/* Refuse to run on a real machine, because any large process counts as a guest. */
	if (access("/sys/firmware/qemu_fw_cfg/by_name/opt/rig", F_OK)) {
		fprintf(stderr, "stress-move: runs in the rig's guests only\n");
		return 2;
	}
	srandom(atoi(argv[1]));
	sigaction(SIGTERM, &act, NULL);
	for (int i = 2; i < argc; i++)
		while (!stopped && access(argv[i], F_OK))
			usleep(50000);
	while (!stopped) {
		struct guest guests[8], *g;
		int n = find_guests(guests, 8);
		int op = random() % 4 < 2 ? OUT : random() % 8 ? COLLAPSE : COMPACT;
		struct iovec range = { .iov_len = RANGE * PAGE };
		double due;
		uint64_t addr = 0;
		int fd;

		if (!n) {
			usleep(50000);
			continue;
		}
		g = &guests[random() % n];
		due = cpu_time(g->pid) + 0.005 + random() % 20 / 1e3;
		do
			usleep(2000);
		while (!stopped && !kill(g->pid, 0) && cpu_time(g->pid) < due);
		/* Much of a guest's memory has never been touched. */
		for (int tries = 0, some = 0; !some && tries < 32; tries++) {
			addr = (g->begin + random() % (g->pages - RANGE) * PAGE) & ~(HUGE - 1);
			if (addr < g->begin)
				addr += HUGE;
			if (frames(g->pid, addr, before))
				break;
			for (int i = 0; i < RANGE; i++)
				some |= !!(before[i] & PRESENT);
		}
		range.iov_base = (void *)addr;
		/* Swap out less than a whole huge page if possible, so that the kernel has to split it. */
		if (op == OUT) {
			range.iov_len = (1 + random() % RANGE) * PAGE;
			range.iov_base = (void *)(addr + random() % (RANGE - range.iov_len / PAGE + 1) * PAGE);
		}
		fd = syscall(SYS_pidfd_open, g->pid, 0);
		if (fd < 0)
			continue;
		if (!frames(g->pid, addr, before)) {
			if (op == COMPACT)
				compact();
			else
				syscall(SYS_process_madvise, fd, &range, 1, op == OUT ? MADV_PAGEOUT : MADV_COLLAPSE, 0);
			if (!frames(g->pid, addr, after))
				for (int i = 0; i < RANGE; i++)
					moved[op] += (before[i] & PRESENT) &&
						     (!(after[i] & PRESENT) || (after[i] ^ before[i]) & FRAME);
		}
		close(fd);
		steps++;
	}
	printf("moved pages in %u steps:", steps);
	for (int op = 0; op < OPS; op++)
		printf(" %llu %s%s", (unsigned long long)moved[op], names[op], op + 1 < OPS ? "," : "\n");
	/* Ignore the other counts: whether any pages can be collapsed or compacted is a matter of chance. */
	return !moved[OUT];
}
