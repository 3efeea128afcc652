// SPDX-License-Identifier: GPL-2.0-only
/*
 * svm-tlb: the counters of L0's TLB model, summed over all processors, as name=value in one line; nothing without the model.
 *
 * The MSRs are those of ci/qemu's "Model the TLB that SVM guests see": the first one reads as the number of counters that
 * follow it, in the order of SVM_TLB_COUNTERS.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#define MSR_SELECT	0xc0011f00
#define MSR_COUNTER	0xc0011f01

static const struct {
	const char *name;
	unsigned int number;
} counters[] = {
	{ "vmrun", 0 }, { "walks", 3 }, { "flush_all", 11 }, { "flush_asid", 12 }, { "flush_local", 13 }, { "invlpga", 15 },
	{ "stale", 24 }, { "stale_rights", 25 },
};

#define NR (sizeof(counters) / sizeof(counters[0]))

int main(void)
{
	uint64_t sum[NR] = { 0 }, value;
	char path[32];
	int cpus = 0;

	for (;; cpus++) {
		int fd;

		snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpus);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			break;
		if (pread(fd, &value, 8, MSR_SELECT) != 8 || value < 26)
			return 0;
		for (unsigned int i = 0; i < NR; i++) {
			if (pread(fd, &value, 8, MSR_COUNTER + counters[i].number) != 8)
				return 1;
			sum[i] += value;
		}
		close(fd);
	}
	for (unsigned int i = 0; cpus && i < NR; i++)
		printf("%s=%llu%s", counters[i].name, (unsigned long long)sum[i], i + 1 < NR ? " " : "\n");
	return 0;
}
