/* SPDX-License-Identifier: MIT */
/* Memory from malloc or the user's allocator. */
#ifndef LF_BASE_ALLOC_H
#define LF_BASE_ALLOC_H

#include "base/port.h"

/* Returns @size bytes for any type, not initialised, or NULL. Never called with a lock held: the allocator may be the user's. */
void *mem_alloc(size_t size);

/* Like mem_alloc(), but zeroed. */
void *mem_zalloc(size_t size);

/* Like mem_alloc(), for @count times @size bytes behind a head of @head; NULL when that is more than there can be. */
void *mem_alloc_array(size_t head, size_t count, size_t size);

/*
 * A larger array for @old, which is freed: @count times @size bytes, of which the first @filled times are @old's. NULL when there is no
 * memory; then @old is as it was. @old may be NULL, with @filled 0.
 */
void *mem_grow(void *old, size_t filled, size_t count, size_t size);

/* Takes NULL. */
void mem_free(void *ptr);

/* After lf_fini(): another allocator may be set. */
void mem_reset(void);

#endif /* LF_BASE_ALLOC_H */
