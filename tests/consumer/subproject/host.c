/* SPDX-License-Identifier: MIT */
/*
 * Loads a plug-in, lets a thread use it, unloads it, and only then lets the thread end: nothing of the plug-in, nor of what it was linked
 * with, may be needed by then.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

static pthread_barrier_t used, unloaded;
static int (*run)(void);

static void *use_and_stay(void *result)
{
	*(int *)result = run();
	pthread_barrier_wait(&used);
	pthread_barrier_wait(&unloaded);
	return NULL;
}

static int once(const char *path)
{
	void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	pthread_t thread;
	int result = -1;

	if (!plugin) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	*(void **)&run = dlsym(plugin, "plugin_run");
	if (dlsym(plugin, "lf_fini")) {
		fprintf(stderr, "the plug-in exports its libfence\n");
		return 1;
	}
	if (!run || pthread_create(&thread, NULL, use_and_stay, &result))
		return 1;
	pthread_barrier_wait(&used);
	if (dlclose(plugin) || dlopen(path, RTLD_NOW | RTLD_NOLOAD)) {
		fprintf(stderr, "the plug-in stays loaded\n");
		return 1;
	}
	pthread_barrier_wait(&unloaded);
	pthread_join(thread, NULL);
	return result;
}

int main(int argc, char **argv)
{
	int result = argc != 2;

	pthread_barrier_init(&used, NULL, 2);
	pthread_barrier_init(&unloaded, NULL, 2);
	for (int i = 0; i < 3 && result == 0; i++)
		result = once(argv[1]);
	return result;
}
