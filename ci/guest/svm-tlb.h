/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The counters of L0's TLB model.  The MSRs are those of ci/qemu's "Model the TLB that SVM guests see": the first one reads as the number of
 * counters that follow it, in the order of SVM_TLB_COUNTERS.  ci/bochs/model has the same MSRs on the machine with VMX, with VM entries,
 * INVVPIDs, INVEPTs and VMCSs of two processors in place of VMRUNs, flushes of one ASID and of all ASIDs, and stale rights.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MSR_SELECT	0xc0011f00
#define MSR_COUNTER	0xc0011f01

static const struct {
	const char *name;
	unsigned int number;
} counters[] = {
	{ "vmrun", 0 }, { "walks", 3 }, { "flush_all", 11 }, { "flush_asid", 12 }, { "flush_local", 13 }, { "invlpga", 15 },
	{ "stale", 24 }, { "stale_rights", 25 }, { "reloads", 27 },
};

#define NR_COUNTERS (sizeof(counters) / sizeof(counters[0]))

/* The counters, summed over all processors.  Returns how many of these have counters, negative if they can't be read. */
static inline int read_counters(uint64_t *sum)
{
	uint64_t value;
	char path[32];
	int cpus, fd;

	memset(sum, 0, NR_COUNTERS * sizeof(*sum));
	for (cpus = 0;; cpus++) {
		snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpus);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			return cpus;
		if (pread(fd, &value, 8, MSR_SELECT) != 8 || value < 28) {
			close(fd);
			return 0;
		}
		for (unsigned int i = 0; i < NR_COUNTERS; i++) {
			if (pread(fd, &value, 8, MSR_COUNTER + counters[i].number) != 8) {
				close(fd);
				return -1;
			}
			sum[i] += value;
		}
		close(fd);
	}
}

/* Prints the counters as name=value, with spaces between them. */
static inline void print_counters(const uint64_t *sum)
{
	for (unsigned int i = 0; i < NR_COUNTERS; i++)
		printf("%s%s=%llu", i ? " " : "", counters[i].name, (unsigned long long)sum[i]);
}
