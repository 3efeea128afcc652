// SPDX-License-Identifier: GPL-2.0-only
/*
 * stress-memory SEED WORKERS [ROUNDS]: start processes that map, write, protect, move, fork, drop and unmap memory, and check all that they
 * read, until standard input has a line or ends, or until each process has done ROUNDS rounds.
 *
 * Each page holds 512 words that are derived from a key, which is different for each worker, page and write; pages that were never
 * written are zero.  An access to a page that is read-only or unmapped must fault.  Prints progress twice a second.  At the first wrong
 * word, prints its address, the expected and the actual value, and exits with status 1.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096ul
#define WORDS	(PAGE / 8)
#define SLOTS	12
#define MOST	512		/* pages of a slot: 2 MB */
#define FORKED	(1ull << 32)	/* in a key: written by a child */

struct slot {
	uint64_t *mem;
	unsigned int pages;
	uint64_t key[MOST];
};

struct count {
	volatile uint64_t rounds, checked, faults, forks, moves;
};

static struct slot slots[SLOTS];
static struct count *counts;	/* shared; the last one's rounds tell the workers to end */
static unsigned int workers;
static uint64_t limit;	/* of the rounds of each worker; zero for none */
static uint64_t writes, state;
static unsigned int worker;
static sigjmp_buf faulted;

static uint64_t rnd(uint64_t below)
{
	/* xorshift64* */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * 0x2545f4914f6cdd1dull >> 16) % below;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t word(uint64_t key, unsigned int i)
{
	return key ? (key ^ (uint64_t)i << 20) * 0x9e3779b97f4a7c15ull : 0;
}

static void wrong(const char *what, const void *where, uint64_t key, uint64_t expected, uint64_t got)
{
	printf("MISMATCH worker %u round %llu: %s at %p: expected %016llx (key %llx), got %016llx, now %016llx\n", worker,
	       (unsigned long long)counts[worker].rounds, what, where, (unsigned long long)expected, (unsigned long long)key,
	       (unsigned long long)got, (unsigned long long)*(volatile uint64_t *)where);
	fflush(stdout);
	_exit(1);
}

static void check(struct slot *s, unsigned int first, unsigned int n)
{
	for (unsigned int p = first; p < first + n; p++) {
		volatile uint64_t *mem = s->mem + p * WORDS;

		for (unsigned int i = 0; i < WORDS; i++) {
			uint64_t got = mem[i];

			if (got != word(s->key[p], i))
				wrong("word", (void *)&mem[i], s->key[p], word(s->key[p], i), got);
		}
		counts[worker].checked++;
	}
}

static void fill(struct slot *s, unsigned int first, unsigned int n, uint64_t mark)
{
	for (unsigned int p = first; p < first + n; p++) {
		s->key[p] = (uint64_t)(worker + 1) << 56 | mark | ++writes;
		for (unsigned int i = 0; i < WORDS; i++)
			s->mem[p * WORDS + i] = word(s->key[p], i);
	}
}

static void on_fault(int sig)
{
	siglongjmp(faulted, sig);
}

/* Read a page that is unmapped, or write to one that is read-only; fail if there is no fault. */
static void must_fault(uint64_t *where, int write)
{
	if (!sigsetjmp(faulted, 1)) {
		if (write)
			*(volatile uint64_t *)where = ~0ull;
		uint64_t got = *(volatile uint64_t *)where;

		printf("MISMATCH worker %u round %llu: no fault at %p, which is %s: %016llx\n", worker,
		       (unsigned long long)counts[worker].rounds, (void *)where, write ? "read-only" : "not mapped", (unsigned long long)got);
		fflush(stdout);
		_exit(1);
	}
	counts[worker].faults++;
}

static void *map(unsigned int pages, int prot)
{
	void *mem = mmap(NULL, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED) {
		perror("mmap");
		_exit(2);
	}
	return mem;
}

static void end_unless(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		_exit(2);
	}
}

/* The child writes to its copies of the pages: the parent must not see these writes, and the child must see all of them. */
static void with_child(struct slot *s, unsigned int first, unsigned int n)
{
	pid_t child = fork();
	int status;

	end_unless(child >= 0, "fork");
	if (!child) {
		check(s, first, n);
		fill(s, first, n, FORKED);
		check(s, 0, s->pages);
		_exit(0);
	}
	fill(s, first, 1 + rnd(n), 0);
	end_unless(waitpid(child, &status, 0) == child, "waitpid");
	if (status)
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 3);
	check(s, first, n);
	counts[worker].forks++;
}

static void one_round(void)
{
	struct slot *s = &slots[rnd(SLOTS)];
	unsigned int first, n;

	if (!s->mem) {
		s->pages = rnd(4) ? 1 + rnd(64) : MOST;
		s->mem = map(s->pages, PROT_READ | PROT_WRITE);
		memset(s->key, 0, sizeof(s->key));
		return;
	}
	first = rnd(s->pages);
	n = 1 + rnd(s->pages - first < 32 ? s->pages - first : 32);

	switch (rnd(10)) {
	case 0:
		check(s, 0, s->pages);
		end_unless(!munmap(s->mem, s->pages * PAGE), "munmap");
		must_fault(s->mem + first * WORDS, 0);
		s->mem = NULL;
		break;
	case 1:
		end_unless(!mprotect(s->mem + first * WORDS, n * PAGE, PROT_READ), "mprotect");
		must_fault(s->mem + (first + rnd(n)) * WORDS, 1);
		check(s, first, n);
		end_unless(!mprotect(s->mem + first * WORDS, n * PAGE, PROT_READ | PROT_WRITE), "mprotect");
		fill(s, first, n, 0);
		break;
	case 2:
		end_unless(!madvise(s->mem + first * WORDS, n * PAGE, MADV_DONTNEED), "madvise");
		memset(s->key + first, 0, n * sizeof(*s->key));
		check(s, first, n);
		break;
	case 3: {
		uint64_t *old = s->mem;

		s->mem = map(s->pages, PROT_NONE);
		end_unless(mremap(old, s->pages * PAGE, s->pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, s->mem) == s->mem, "mremap");
		must_fault(old + first * WORDS, 0);
		check(s, 0, s->pages);
		counts[worker].moves++;
		break;
	}
	case 4:
		with_child(s, first, n);
		break;
	case 5:
	case 6:
		check(s, 0, s->pages);
		break;
	default:
		fill(s, first, n, 0);
		check(s, first, n);
	}
}

static void work(uint64_t seed)
{
	struct sigaction act = { .sa_handler = on_fault };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGSEGV, &act, NULL);
	state = ((seed + 1) * 0x9e3779b97f4a7c15ull ^ (uint64_t)worker << 40) | 1;
	while (!counts[workers].rounds && (!limit || counts[worker].rounds < limit)) {
		one_round();
		counts[worker].rounds++;
	}
	for (struct slot *s = slots; s < slots + SLOTS; s++)
		if (s->mem)
			check(s, 0, s->pages);
	_exit(0);
}

int main(int argc, char **argv)
{
	struct pollfd in = { .fd = argc == 4 ? -1 : 0, .events = POLLIN };
	double start = now(), told = start;
	unsigned int left;
	int status;

	if (argc != 3 && argc != 4) {
		fprintf(stderr, "usage: stress-memory SEED WORKERS [ROUNDS]\n");
		return 2;
	}
	workers = left = atoi(argv[2]);
	limit = argc == 4 ? strtoull(argv[3], NULL, 0) : 0;
	counts = mmap(NULL, (workers + 1) * sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	end_unless(counts != MAP_FAILED, "mmap");
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("begun: seed %s, %u workers\n", argv[1], workers);
	for (worker = 0; worker < workers; worker++)
		if (!fork())
			work(strtoull(argv[1], NULL, 0));
	for (;;) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid > 0) {
			if (status)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
			left--;
		}
		if (!left || now() >= told + 0.5) {
			struct count sum = { 0 };

			for (unsigned int w = 0; w < workers; w++) {
				sum.rounds += counts[w].rounds;
				sum.checked += counts[w].checked;
				sum.faults += counts[w].faults;
				sum.forks += counts[w].forks;
				sum.moves += counts[w].moves;
			}
			told = now();
			printf("%s: %.1f s, %llu rounds, %llu pages checked, %llu faults, %llu forks, %llu moves\n", left ? "at" : "done",
			       told - start, (unsigned long long)sum.rounds, (unsigned long long)sum.checked, (unsigned long long)sum.faults,
			       (unsigned long long)sum.forks, (unsigned long long)sum.moves);
		}
		if (!left)
			return 0;
		if (counts[workers].rounds)
			usleep(20000);
		else if (poll(&in, 1, 100) > 0)
			counts[workers].rounds = 1;
	}
}
