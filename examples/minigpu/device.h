/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Memory of the emulated GPU: pages of device memory, of which there are few, and host memory, of which there is enough.
 *
 * A *place* is memory for one buffer. Engines reach it page by page, as page tables do; pages of device memory are handed out singly, so
 * the pages of a place lie anywhere.
 */
#ifndef MINIGPU_DEVICE_H
#define MINIGPU_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#define GPU_PAGE ((size_t)4096)

struct device;

/** Where a buffer is. Immutable. */
struct place {
	struct device *device;
	size_t count; /**< pages */
	unsigned char *host; /**< the memory, when it is host memory; else NULL */
	bool left; /**< protected by the device's lock: its pages count as leaving */
	unsigned char *pages[];
};

/** The pages of device memory. */
struct device {
	pthread_mutex_t lock; /* protects all below */
	pthread_cond_t released;
	unsigned char *bytes;
	size_t count; /**< pages; immutable */
	unsigned char **free; /**< a stack */
	size_t free_count;
	size_t leaving; /**< pages that will be free when fences have signaled */
	size_t host_count; /**< pages of host memory in use */
};

void device_init(struct device *d, size_t bytes);

/** Every place has been released; what has not is complained about. */
void device_fini(struct device *d);

/** @return a place of @p count pages of device memory; NULL when there are not so many at this moment. */
struct place *device_take(struct device *d, size_t count);

/** @return a place of @p count pages of host memory. */
struct place *device_take_host(struct device *d, size_t count);

/** Says that the buffer has moved away (@p p may be NULL): its pages come back by themselves, through place_release(). */
void place_leave(struct place *p);

/** The release hook of a buffer's backing; @p memory is the place. */
void place_release(void *memory, void *user);

/** @return how many pages of device memory are free. */
size_t device_free_now(struct device *d);

/** @return how many are, or will be without anybody's doing. */
size_t device_free_soon(struct device *d);

/** Sleeps until @p count pages are free, or none is leaving any more. Nothing may be locked. */
void device_wait(struct device *d, size_t count);

/** @return whether engines may work on it: only the copy engine reaches host memory. */
static inline bool place_is_device(const struct place *p)
{
	return p && !p->host;
}

#endif /* MINIGPU_DEVICE_H */
