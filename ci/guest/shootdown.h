/* SPDX-License-Identifier: GPL-2.0-only */
/* How this level's kernel flushes TLBs: with interrupts, or with INVLPGB. */
#include <cpuid.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * How many interrupts the processors have received, by the name of their line in /proc/interrupts with a colon, such as "TLB:".  0 if there is no such
 * line.
 */
static inline uint64_t interrupts(const char *name)
{
	char line[1024], *p, *next;
	FILE *f = fopen("/proc/interrupts", "r");
	uint64_t sum = 0, n;

	if (!f) {
		perror("/proc/interrupts");
		exit(2);
	}
	while (fgets(line, sizeof(line), f)) {
		p = strstr(line, name);
		if (!p)
			continue;
		for (p += strlen(name); n = strtoull(p, &next, 10), next != p; p = next)
			sum += n;
	}
	fclose(f);
	return sum;
}

/* The number of timer ticks since the kernel has booted */
static inline uint64_t ticks(void)
{
	struct timespec tick, now;

	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (now.tv_sec * 1000000000ull + now.tv_nsec) / tick.tv_nsec;
}

/*
 * Make the kernel use INVLPGB for this process, if there is INVLPGB.  Linux begins to use it if a thread flushes in a certain one of 32 ticks, which
 * depends on the thread's id, while four or more processors run threads of the process.  So have one thread flush in all of these ticks, twice,
 * in case a processor does something else in between.  Threads that wait for each other, as they would for mmap_lock if more than one of them
 * flushed, do not count as running.
 */
static inline void begin_to_use_invlpgb(void (*flush)(void))
{
	unsigned int a, b = 0, c, d;

	__get_cpuid(0x80000008, &a, &b, &c, &d);
	for (int i = 0; b & 1 << 3 && i < 2; i++) {
		uint32_t seen = 0;

		while (~seen) {
			uint64_t now = ticks();

			flush();
			if (ticks() == now)
				seen |= 1u << now % 32;
		}
	}
}
