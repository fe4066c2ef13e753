/* SPDX-License-Identifier: MIT */
/*
 * Names of timelines by context id: a fence holds the id only, so that it needs nothing of its timeline. Part of timeline.c.
 */
#ifndef LF_FENCE_REGISTRY_H
#define LF_FENCE_REGISTRY_H

#include <stddef.h>
#include <stdint.h>

/* Writes the name like snprintf(); "signaled-timeline" when the timeline is gone. */
int registry_name(uint64_t context, char *buf, size_t size);

#endif /* LF_FENCE_REGISTRY_H */
