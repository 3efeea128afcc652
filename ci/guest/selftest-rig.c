// SPDX-License-Identifier: GPL-2.0-only
/*
 * Linked into each selftest with the linker's --wrap (ci/build/kernel), so that no
 * verdict depends on the speed of the host, and so that what is random can be
 * repeated.  ci/guest/run-tests keeps /tmp/slow: how much longer everything
 * takes at the moment than on an idle machine.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

/* A test case that has a limit of its own gets so many times as long. */
#define PATIENCE	2

int __real_poll(struct pollfd *fds, nfds_t nr, int timeout);
unsigned int __real_alarm(unsigned int seconds);
void __real_srand(unsigned int seed);
void __real_srandom(unsigned int seed);

int __wrap_poll(struct pollfd *fds, nfds_t nr, int timeout);
unsigned int __wrap_alarm(unsigned int seconds);
void __wrap_srand(unsigned int seed);
void __wrap_srandom(unsigned int seed);

static double slow(void)
{
	FILE *f = fopen("/tmp/slow", "r");
	double value;

	if (!f || fscanf(f, "%lf", &value) != 1 || value < 1)
		value = 1;
	if (f)
		fclose(f);
	return value;
}

/*
 * The test harness waits for a test case with poll().  Its default is 30
 * seconds: then only the limit of the whole program counts, which the rig
 * watches.  Other limits are counted in seconds of an idle machine.
 */
int __wrap_poll(struct pollfd *fds, nfds_t nr, int timeout)
{
	double left = timeout / 1000.0 * PATIENCE;
	int r;

	if (timeout < 5000)
		return __real_poll(fds, nr, timeout);
	if (timeout == 30000)
		return __real_poll(fds, nr, -1);
	do {
		r = __real_poll(fds, nr, 1000);
		left -= 1 / slow();
	} while (!r && left > 0);
	return r;
}

/* Tests use it to end what hangs, after a second or two. */
unsigned int __wrap_alarm(unsigned int seconds)
{
	return __real_alarm(seconds * 30);
}

/* Without RIG_SEED, what is random differs from run to run; with the number that is printed, it's repeated. */
static unsigned int seed_of_rig(unsigned int seed)
{
	const char *rig = getenv("RIG_SEED");

	if (rig)
		seed = atoi(rig);
	fprintf(stderr, "RIG_SEED=%u\n", seed);
	return seed;
}

void __wrap_srand(unsigned int seed)
{
	__real_srand(seed_of_rig(seed));
}

void __wrap_srandom(unsigned int seed)
{
	__real_srandom(seed_of_rig(seed));
}
