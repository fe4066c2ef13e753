/* SPDX-License-Identifier: MIT */
/*
 * Pages of device memory.
 *
 * Purpose. Hands out places, and gets them back from the release hook of the buffers' backings: on whatever thread the last fence of a
 * buffer's old place signals. Who finds too little free memory can sleep here until that has happened.
 *
 * What is given back is overwritten: an engine that reads a place which its buffer has left computes a wrong digest.
 *
 * Locking. One lock, a leaf.
 *
 * Not here: which buffer has to leave (manager.c).
 */
#include "device.h"

#include <stdlib.h>
#include <string.h>

#include "util.h"

#define LEFT_BEHIND 0xdb

void device_init(struct device *d, size_t bytes)
{
	*d = (struct device){ .count = bytes / GPU_PAGE };
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->released, NULL);
	d->bytes = allocate(d->count, GPU_PAGE);
	d->free = allocate(d->count, sizeof(unsigned char *));
	while (d->free_count < d->count) {
		d->free[d->free_count] = d->bytes + d->free_count * GPU_PAGE;
		d->free_count++;
	}
}

void device_fini(struct device *d)
{
	if (d->free_count != d->count || d->host_count)
		complain("%zu pages of device memory and %zu of host memory were never given back", d->count - d->free_count,
			d->host_count);
	free(d->free);
	free(d->bytes);
	pthread_cond_destroy(&d->released);
	pthread_mutex_destroy(&d->lock);
}

static struct place *make_place(struct device *d, size_t count)
{
	struct place *p = allocate(1, sizeof(*p) + count * sizeof(unsigned char *));

	p->device = d;
	p->count = count;
	return p;
}

struct place *device_take(struct device *d, size_t count)
{
	struct place *p = make_place(d, count);
	bool enough;

	pthread_mutex_lock(&d->lock);
	enough = d->free_count >= count;
	for (size_t i = 0; i < count && enough; i++)
		p->pages[i] = d->free[--d->free_count];
	pthread_mutex_unlock(&d->lock);
	if (enough)
		return p;
	free(p);
	return NULL;
}

struct place *device_take_host(struct device *d, size_t count)
{
	struct place *p = make_place(d, count);

	p->host = allocate(count, GPU_PAGE);
	for (size_t i = 0; i < count; i++)
		p->pages[i] = p->host + i * GPU_PAGE;
	pthread_mutex_lock(&d->lock);
	d->host_count += count;
	pthread_mutex_unlock(&d->lock);
	return p;
}

void place_leave(struct place *p)
{
	if (!place_is_device(p))
		return;
	pthread_mutex_lock(&p->device->lock);
	p->left = true;
	p->device->leaving += p->count;
	pthread_mutex_unlock(&p->device->lock);
}

static void release_pages(struct place *p)
{
	struct device *d = p->device;

	for (size_t i = 0; i < p->count; i++)
		memset(p->pages[i], LEFT_BEHIND, GPU_PAGE);
	pthread_mutex_lock(&d->lock);
	for (size_t i = 0; i < p->count; i++)
		d->free[d->free_count++] = p->pages[i];
	d->leaving -= p->left ? p->count : 0;
	pthread_cond_broadcast(&d->released);
	pthread_mutex_unlock(&d->lock);
}

void place_release(void *memory, void *user)
{
	struct place *p = memory;

	(void)user;
	if (place_is_device(p)) {
		release_pages(p);
	} else {
		pthread_mutex_lock(&p->device->lock);
		p->device->host_count -= p->count;
		pthread_mutex_unlock(&p->device->lock);
		free(p->host);
	}
	free(p);
}

size_t device_free_now(struct device *d)
{
	size_t count;

	pthread_mutex_lock(&d->lock);
	count = d->free_count;
	pthread_mutex_unlock(&d->lock);
	return count;
}

size_t device_free_soon(struct device *d)
{
	size_t count;

	pthread_mutex_lock(&d->lock);
	count = d->free_count + d->leaving;
	pthread_mutex_unlock(&d->lock);
	return count;
}

void device_wait(struct device *d, size_t count)
{
	pthread_mutex_lock(&d->lock);
	while (d->free_count < count && d->leaving)
		pthread_cond_wait(&d->released, &d->lock);
	pthread_mutex_unlock(&d->lock);
}
