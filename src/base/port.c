/* SPDX-License-Identifier: MIT */
/* What of the default port is not inline. Overview in port.h. */
#include "base/port.h"

#include <signal.h>

int port_thread_create(port_thread *thread, const char *name, void *(*fn)(void *), void *arg)
{
	sigset_t all, before;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret == 0)
		pthread_setname_np(*thread, name);
	return -ret;
}
