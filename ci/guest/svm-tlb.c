// SPDX-License-Identifier: GPL-2.0-only
/*
 * svm-tlb: print the counters of L0's TLB model, and how many IPIs L0's processors have sent to each other, summed over all processors, as
 * name=value in one line; print nothing without the model.
 *
 * svm-tlb asids N COMMAND...: run COMMAND, and fail if its VMRUNs on all processors did not use exactly N different ASIDs.  Exit
 * status 4 (skipped) without the model.
 *
 * svm-tlb flushes MIN MAX COMMAND...: run COMMAND, and fail if L0's processors flushed one or all ASIDs fewer than MIN or more than MAX
 * times while it ran.  Exit status 4 (skipped) without the model.
 *
 * svm-tlb invlpgb MIN MAX COMMAND...: run COMMAND, and fail if INVLPGB was executed for ASIDs of guests fewer than MIN or more than MAX times
 * while it ran.  Unless KVM uses INVLPGB to flush guests' ASIDs, guests have executed these by themselves, without an exit.  Exit status 4
 * (skipped) without the model.
 *
 * svm-tlb cputime PID: print the CPU time of a process, in nanoseconds.  This time is exact because the kernel accounts for it when it
 * switches between threads.
 *
 * svm-tlb memory FILE COMMAND...: run COMMAND, and write to FILE by how many bytes the kernel's memory had grown when COMMAND was about
 * to exit, with its files still open.  The kernel's memory is all memory that is neither free nor used by user space.
 */
#include <cpuid.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shootdown.h"
#include "svm-tlb.h"

/* Counters that are read for each ASID */
#define VMRUN		0
#define INVLPGB		31

static unsigned int nr_asids(void)
{
	unsigned int a, b = 0, c, d;

	__get_cpuid(0x8000000a, &a, &b, &c, &d);
	return b;
}

/* Returns a counter of each ASID but 0, summed over all processors, or NULL without the model. */
static uint64_t *of_asids(unsigned int counter, unsigned int asids)
{
	uint64_t *sum = calloc(asids, sizeof(*sum)), all = ~0ull, value;
	char path[32];

	for (int cpu = 0; sum; cpu++) {
		int fd;

		snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
		fd = open(path, O_RDWR);
		if (fd < 0)
			return cpu ? sum : NULL;
		if (pread(fd, &value, 8, MSR_SELECT) != 8 || value <= counter)
			return NULL;
		for (uint64_t asid = 1; asid < asids; asid++) {
			if (pwrite(fd, &asid, 8, MSR_SELECT) != 8 || pread(fd, &value, 8, MSR_COUNTER + counter) != 8)
				return NULL;
			sum[asid] += value;
		}
		if (pwrite(fd, &all, 8, MSR_SELECT) != 8)
			return NULL;
		close(fd);
	}
	return NULL;
}

/* Returns COMMAND's exit status. */
static int run(char **command)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		execvp(command[0], command);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int cputime(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		return 1;
	printf("%lld\n", t.tv_sec * 1000000000ll + t.tv_nsec);
	return 0;
}

/* The sum of the numbers after NAME in the lines of a file. */
static long sum_of(const char *path, const char *name)
{
	char line[256], word[64];
	long sum = 0, value;
	FILE *f = fopen(path, "r");

	if (!f)
		exit(1);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " %63s %ld", word, &value) == 2 && !strcmp(word, name))
			sum += value;
	fclose(f);
	return sum;
}

/* In bytes.  nr_free_pages does not include the free pages in the lists of each processor ("count:"). */
static long kernel_memory(void)
{
	/* Wait for memory that the kernel frees in the background, then fold the counters of each processor into the totals. */
	sleep(1);
	sum_of("/proc/sys/vm/stat_refresh", "");

	return (sum_of("/proc/zoneinfo", "managed") - sum_of("/proc/zoneinfo", "nr_free_pages") - sum_of("/proc/zoneinfo", "count:") -
		sum_of("/proc/vmstat", "nr_anon_pages") - sum_of("/proc/vmstat", "nr_file_pages")) * sysconf(_SC_PAGESIZE);
}

/* Returns COMMAND's exit status. */
static int memory(const char *path, char **command)
{
	long before = kernel_memory(), bytes = -1;
	int status, sig;
	FILE *f;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execvp(command[0], command);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid ||
	    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXIT | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL))
		return 1;

	for (sig = 0; WIFSTOPPED(status); sig = status >> 16 ? 0 : WSTOPSIG(status)) {
		if (status >> 16 == PTRACE_EVENT_EXIT)
			bytes = kernel_memory() - before;
		if (ptrace(PTRACE_CONT, pid, 0, (long)sig) || waitpid(pid, &status, 0) != pid)
			return 1;
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;

	f = fopen(path, "w");
	if (!f)
		return 1;
	fprintf(f, "%ld\n", bytes);
	return !!fclose(f);
}

static int count_asids(unsigned long expected, char **command)
{
	unsigned int asids = nr_asids(), n = 0;
	uint64_t *before, *after;
	int status;

	before = of_asids(VMRUN, asids);
	if (!before) {
		printf("SKIP: no counters of a TLB model\n");
		return 4;
	}
	status = run(command);
	if (status)
		return status;
	after = of_asids(VMRUN, asids);
	if (!after)
		return 1;
	for (unsigned int asid = 1; asid < asids; asid++) {
		if (after[asid] == before[asid])
			continue;
		printf("ASID %u: %llu VMRUNs\n", asid, (unsigned long long)(after[asid] - before[asid]));
		n++;
	}
	printf("%u ASIDs, expected %lu\n", n, expected);
	return n != expected;
}

static int count_invlpgb(unsigned long min, unsigned long max, char **command)
{
	unsigned int asids = nr_asids();
	uint64_t *before, *after, n = 0;
	int status;

	before = of_asids(INVLPGB, asids);
	if (!before) {
		printf("SKIP: no counters of a TLB model with INVLPGB\n");
		return 4;
	}
	status = run(command);
	if (status)
		return status;
	after = of_asids(INVLPGB, asids);
	if (!after)
		return 1;
	for (unsigned int asid = 1; asid < asids; asid++)
		n += after[asid] - before[asid];
	printf("%llu INVLPGBs for ASIDs of guests, expected %lu to %lu\n", (unsigned long long)n, min, max);
	return n < min || n > max;
}

static uint64_t flushes(const uint64_t *sum)
{
	uint64_t flushes = 0;

	for (unsigned int i = 0; i < NR_COUNTERS; i++)
		if (!strncmp(counters[i].name, "flush_", 6))
			flushes += sum[i];
	return flushes;
}

static int count_flushes(unsigned long min, unsigned long max, char **command)
{
	uint64_t before[NR_COUNTERS], after[NR_COUNTERS], n;
	int status;

	if (read_counters(before) <= 0) {
		printf("SKIP: no counters of a TLB model\n");
		return 4;
	}
	status = run(command);
	if (status)
		return status;
	if (read_counters(after) <= 0)
		return 1;
	n = flushes(after) - flushes(before);
	printf("%llu flushes, expected %lu to %lu\n", (unsigned long long)n, min, max);
	return n < min || n > max;
}

int main(int argc, char **argv)
{
	uint64_t sum[NR_COUNTERS];
	int cpus;

	if (argc > 3 && !strcmp(argv[1], "asids"))
		return count_asids(strtoul(argv[2], NULL, 0), argv + 3);

	if (argc > 4 && !strcmp(argv[1], "flushes"))
		return count_flushes(strtoul(argv[2], NULL, 0), strtoul(argv[3], NULL, 0), argv + 4);

	if (argc > 4 && !strcmp(argv[1], "invlpgb"))
		return count_invlpgb(strtoul(argv[2], NULL, 0), strtoul(argv[3], NULL, 0), argv + 4);

	if (argc == 3 && !strcmp(argv[1], "cputime"))
		return cputime(atoi(argv[2]));

	if (argc > 3 && !strcmp(argv[1], "memory"))
		return memory(argv[2], argv + 3);

	cpus = read_counters(sum);
	if (cpus < 0)
		return 1;
	if (cpus) {
		print_counters(sum);
		printf(" ipis=%llu\n", (unsigned long long)(interrupts("RES:") + interrupts("CAL:")));
	}
	return 0;
}
