// SPDX-License-Identifier: GPL-2.0-only
/*
 * stress-shootdown SEED ROUNDS: the threads of one process, one on each processor, change page tables that all of them use, so that the kernel
 * has to flush the TLBs of all processors, and check that no processor uses a translation from before.
 *
 * Each thread has an area, which it changes ROUNDS times: it maps other pages there, unmaps pages, makes pages read-only or writable, punches
 * holes into the file, moves pages to another address, or forks.  All threads read and write all areas all the time.  What a thread sees
 * while an area changes does not matter.  Once the change is published, each access must see the new page, and must fault if the
 * page is not mapped or read-only.  A thread changes its area again after all others have checked the last change, so each processor has
 * translations from before.
 *
 * Prints the number of changes, faults and forks, the number of TLB shootdowns by interrupt that the kernel has counted meanwhile in
 * /proc/interrupts, and after how many flushes it has begun.  At the first wrong access, prints it, and exits with status 1.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
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

#include "shootdown.h"

#define PAGE		4096ul
#define WORDS		(PAGE / 8)
#define MOST		16		/* threads */
/* More than a Zen 3 flushes with one INVLPGB. */
#define PAGES		20
/* Pages whose faults a thread checks in each round. */
#define FAULTS		3

enum what { MAP, UNMAP, READ_ONLY, WRITABLE, PUNCH, MOVE, FORK, NR_WHAT };

static const char * const names[NR_WHAT] = { "map", "unmap", "read-only", "writable", "punch", "move", "fork" };

enum rights { NOTHING, READ, WRITE };

/*
 * In shared memory, because the children of FORK look at it.  Odd: the area changes.  Each thread writes to its own words of each page; the
 * first word is the owner's, and says which page it is.
 */
struct area {
	volatile uint64_t sequence;
	volatile uint64_t seen[MOST];
	volatile enum what what;
	volatile uint64_t *volatile mem;
	volatile enum rights rights[PAGES];
	volatile uint64_t stamp[PAGES];

	/* One private page for FORK: the words in it as the child has them, and whether the child may compare them. */
	volatile uint64_t *volatile private;
	volatile uint64_t child_ready, child_go;

	/* Where the owner maps the file, and how it writes to it. */
	volatile uint64_t *places[2], *alias;
	volatile int place;
	int which[PAGES];
	int fd;
};

static struct area *areas;
static volatile int done;	/* threads that have changed their areas often enough */
static volatile int running, ready;
static int threads, rounds;
static uint64_t seed;
static uint64_t faults[MOST], changes[MOST], forks[MOST];
static uint64_t flushes, before;	/* to warm up, and interrupts until then */

static __thread int me;
static __thread uint64_t state;
static __thread sigjmp_buf faulted;
static __thread volatile sig_atomic_t may_fault;
/* How often this thread has counted up its word of each private page */
static __thread uint64_t counted[MOST];

static uint64_t rnd(uint64_t below)
{
	/* xorshift64* */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * 0x2545f4914f6cdd1dull >> 16) % below;
}

static void end_unless(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		_exit(2);
	}
}

static void on_fault(int sig)
{
	if (!may_fault) {
		static const char text[] = "stress-shootdown: fault outside of the areas\n";

		(void)!write(1, text, sizeof(text) - 1);
		_exit(2);
	}
	siglongjmp(faulted, sig);
}

/* Returns whether there was no fault.  The signal mask is not saved, as that takes a system call: SA_NODEFER leaves it alone. */
static int try_read(volatile uint64_t *where, uint64_t *value)
{
	int ok = 0;

	may_fault = 1;
	if (!sigsetjmp(faulted, 0)) {
		*value = *where;
		ok = 1;
	}
	may_fault = 0;
	return ok;
}

static int try_write(volatile uint64_t *where, uint64_t value)
{
	int ok = 0;

	may_fault = 1;
	if (!sigsetjmp(faulted, 0)) {
		*where = value;
		ok = 1;
	}
	may_fault = 0;
	return ok;
}

static void wrong(struct area *a, int page, const char *what, uint64_t expected, uint64_t got)
{
	printf("MISMATCH thread %d, area %d, change %llu (%s), page %d: %s: expected %llx, got %llx\n", me, (int)(a - areas),
	       (unsigned long long)a->sequence / 2, names[a->what], page, what, (unsigned long long)expected, (unsigned long long)got);
	fflush(stdout);
	_exit(1);
}

/* Returns 0 if the area has begun to change. */
static int check_page(struct area *a, uint64_t sequence, int page, int fault)
{
	enum rights rights = a->rights[page];
	volatile uint64_t *mem = a->mem + page * WORDS;
	uint64_t stamp = a->stamp[page], value = 0, mine = sequence << 8 | me;
	int ok;

	/* Without this, each access to such a page would take a signal. */
	if (rights == NOTHING && !fault)
		return a->sequence == sequence;

	ok = try_read(mem, &value);
	if (a->sequence != sequence)
		return 0;
	if (ok != (rights != NOTHING))
		wrong(a, page, ok ? "no fault, the page is not mapped" : "fault, the page is mapped", rights, ok);
	faults[me] += !ok;
	if (ok && value != stamp)
		wrong(a, page, "the wrong page", stamp, value);
	if (rights == NOTHING || (rights == READ && !fault))
		return 1;

	ok = try_write(mem + 1 + me, mine);
	if (a->sequence != sequence)
		return 0;
	if (ok != (rights == WRITE))
		wrong(a, page, ok ? "no fault, the page is read-only" : "fault, the page is writable", rights, ok);
	faults[me] += !ok;
	if (!ok)
		return 1;

	ok = try_read(mem + 1 + me, &value);
	if (a->sequence != sequence)
		return 0;
	if (!ok || value != mine)
		wrong(a, page, "the word was lost", mine, value);
	return 1;
}

/* The child of FORK must not see this. */
static void count(struct area *a)
{
	volatile uint64_t *word = &a->private[1 + me];
	uint64_t *mine = &counted[a - areas];

	if (*word != *mine)
		wrong(a, 0, "a count in the private page was lost", *mine, *word);
	*word = ++*mine;
}

static void check(struct area *a)
{
	uint64_t sequence = a->sequence, value;
	int i, page, ok;

	count(a);

	/* Read and write while the area changes, so that translations are cached at all times. */
	if (sequence & 1) {
		page = rnd(PAGES);
		if (a->rights[page] == WRITE)
			try_write(a->mem + page * WORDS + 1 + me, 0);
		else if (a->rights[page] == READ)
			try_read(a->mem + page * WORDS, &value);
		return;
	}

	for (page = 0; page < PAGES; page++) {
		if (!check_page(a, sequence, page, 0))
			return;
	}
	if (a->seen[me] != sequence) {
		for (i = 0; i < FAULTS; i++) {
			if (!check_page(a, sequence, rnd(PAGES), 1))
				return;
		}
		page = rnd(PAGES);
		ok = try_read(a->places[!a->place] + page * WORDS, &value);
		if (a->sequence != sequence)
			return;
		if (ok)
			wrong(a, page, "no fault, the page has moved from there", 0, value);
		faults[me]++;
		count(a);
	}
	if (a->sequence == sequence)
		a->seen[me] = sequence;
}

static void check_others(struct area *mine)
{
	for (struct area *a = areas; a < areas + threads; a++) {
		if (a != mine)
			check(a);
	}
}

static void put_stamp(struct area *a, int page)
{
	a->stamp[page] = a->sequence << 16 | (a - areas) << 8 | page;
	a->alias[(a->which[page] * PAGES + page) * WORDS] = a->stamp[page];
}

static void map(struct area *a, int page, int which, enum rights rights)
{
	volatile uint64_t *where = a->mem + page * WORDS;

	a->which[page] = which;
	put_stamp(a, page);
	end_unless(mmap((void *)where, PAGE, PROT_READ | (rights == WRITE ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED, a->fd,
			(which * PAGES + page) * PAGE) == where, "mmap");
	a->rights[page] = rights;
}

/* The child has a copy of the private page: it must not see what the threads write to theirs. */
static void child(struct area *a)
{
	uint64_t words[1 + MOST];
	int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 0; i <= threads; i++)
		words[i] = a->private[i];
	a->child_ready = 1;
	while (!a->child_go)
		usleep(1000);
	for (i = 0; i <= threads; i++) {
		if (a->private[i] != words[i])
			wrong(a, 0, "the child sees a write of its parent", words[i], a->private[i]);
	}
	_exit(0);
}

static void wait_until_seen(struct area *a)
{
	for (int i = 0; i < threads; i++) {
		while (i != me && a->seen[i] != a->sequence)
			check_others(a);
	}
}

static void change(struct area *a)
{
	int first = rnd(PAGES), n = 1 + rnd(PAGES - first), page, status;
	enum what what = rnd(NR_WHAT);
	volatile uint64_t *old;
	pid_t pid = 0;

	a->sequence++;
	a->what = what;

	switch (what) {
	case MAP:
		for (page = first; page < first + n; page++)
			map(a, page, !a->which[page], WRITE);
		break;
	case UNMAP:
		for (page = first; page < first + n; page++)
			a->rights[page] = NOTHING;
		end_unless(!munmap((void *)(a->mem + first * WORDS), n * PAGE), "munmap");
		break;
	case READ_ONLY:
	case WRITABLE:
		/* The first run of pages with a mapping */
		while (first < PAGES && a->rights[first] == NOTHING)
			first++;
		for (page = first; page < PAGES && page < first + n && a->rights[page] != NOTHING; page++)
			;
		if (page == first)
			break;
		end_unless(!mprotect((void *)(a->mem + first * WORDS), (page - first) * PAGE, PROT_READ | (what == WRITABLE ? PROT_WRITE : 0)),
			   "mprotect");
		while (page-- > first)
			a->rights[page] = what == WRITABLE ? WRITE : READ;
		break;
	case PUNCH:
		for (page = first; page < first + n; page++) {
			end_unless(!fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (a->which[page] * PAGES + page) * PAGE, PAGE),
				   "fallocate");
			a->stamp[page] = 0;
		}
		break;
	case MOVE:
		old = a->mem;
		a->place = !a->place;
		/* mremap() moves one mapping at a time. */
		for (page = 0; page < PAGES; page++) {
			volatile uint64_t *from = old + page * WORDS, *to = a->places[a->place] + page * WORDS;

			if (a->rights[page] == NOTHING)
				munmap((void *)to, PAGE);
			else
				end_unless(mremap((void *)from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
		}
		/* Pages at the old place fault from now on. */
		end_unless(mmap((void *)old, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == old, "mmap");
		a->mem = a->places[a->place];
		break;
	case FORK:
		a->child_ready = a->child_go = 0;
		pid = fork();
		end_unless(pid >= 0, "fork");
		if (!pid)
			child(a);
		while (!a->child_ready)
			usleep(1000);
		break;
	default:
		break;
	}

	a->sequence++;
	wait_until_seen(a);
	changes[me]++;

	if (pid) {
		a->child_go = 1;
		end_unless(waitpid(pid, &status, 0) == pid, "waitpid");
		if (status)
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 3);
		forks[me]++;
	}
}

static void setup(struct area *a)
{
	int page;

	a->fd = memfd_create("area", 0);
	end_unless(a->fd >= 0 && !ftruncate(a->fd, 2 * PAGES * PAGE), "memfd");
	a->alias = mmap(NULL, 2 * PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
	a->private = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	end_unless(a->alias != MAP_FAILED && a->private != MAP_FAILED, "mmap");
	for (int i = 0; i < 2; i++) {
		a->places[i] = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		end_unless(a->places[i] != MAP_FAILED, "mmap");
	}
	a->mem = a->places[0];
	for (page = 0; page < PAGES; page++)
		map(a, page, 0, WRITE);
}

static void flush(void)
{
	static volatile char *page;

	if (!page)
		page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	end_unless(page != MAP_FAILED, "mmap");
	*page = 1;
	end_unless(!mprotect((void *)page, PAGE, PROT_READ) && !mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE), "mprotect");
	flushes++;
}

static void *work(void *arg)
{
	struct area *mine = arg;
	cpu_set_t cpu;

	me = mine - areas;
	state = ((seed + 1) * 0x9e3779b97f4a7c15ull ^ (uint64_t)me << 40) | 1;
	CPU_ZERO(&cpu);
	CPU_SET(me, &cpu);
	end_unless(!sched_setaffinity(0, sizeof(cpu), &cpu), "sched_setaffinity");

	__atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST);
	while (running < threads)
		;
	if (!me) {
		begin_to_use_invlpgb(flush);
		before = interrupts("TLB:");
		ready = 1;
	}
	while (!ready)
		check_others(mine);
	for (int i = 0; i < rounds; i++) {
		check_others(mine);
		change(mine);
	}
	__atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
	while (done < threads)
		check_others(mine);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	uint64_t sum[3] = { 0 };
	pthread_t thread[MOST];

	if (argc != 3) {
		fprintf(stderr, "usage: stress-shootdown SEED ROUNDS\n");
		return 2;
	}
	seed = strtoull(argv[1], NULL, 0);
	rounds = atoi(argv[2]);
	threads = sysconf(_SC_NPROCESSORS_ONLN);
	if (threads > MOST)
		threads = MOST;
	sigaction(SIGSEGV, &act, NULL);
	areas = mmap(NULL, MOST * sizeof(*areas), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	end_unless(areas != MAP_FAILED, "mmap");
	for (int i = 0; i < threads; i++)
		setup(&areas[i]);
	for (int i = 0; i < threads; i++)
		end_unless(!pthread_create(&thread[i], NULL, work, &areas[i]), "pthread_create");
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < threads; i++) {
		sum[0] += changes[i];
		sum[1] += faults[i];
		sum[2] += forks[i];
	}
	printf("stress-shootdown: %d threads, %llu changes, %llu faults, %llu forks, %llu TLB shootdowns by interrupt, after %llu flushes\n", threads,
	       (unsigned long long)sum[0], (unsigned long long)sum[1], (unsigned long long)sum[2], (unsigned long long)(interrupts("TLB:") - before),
	       (unsigned long long)flushes);
	return 0;
}
