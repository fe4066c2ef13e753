/* SPDX-License-Identifier: MIT */
/*
 * One template for every kind of fence: what a consumer may expect of a fence does not depend on where it came from. A kind is an adaptor
 * of three functions; test_family.c runs the whole suite over each that all_kinds lists.
 */
#ifndef FAMILY_H
#define FAMILY_H

#include "testing.h"

/* A fence, and what its kind needs to signal it. */
struct specimen {
	const struct fence_kind *kind;
	struct lf_fence *f; /* the test has one reference */
	struct lf_timeline *timeline; /* the producer; NULL where there is none, or none any more */
	unsigned detached; /* how often the producer's detach hook ran for the fence */
};

struct fence_kind {
	const char *name;
	/* What lf_fence_name() says when the producer is gone. */
	const char *fence_name;
	/* Makes the fence. */
	void (*make)(struct specimen *s);
	/* Signals it; returns whether this call did it. NULL: the fence is born signaled. */
	bool (*signal)(struct specimen *s, int error);
	/* Ends the producer, without which a consumer goes on. What is pending completes with abandoned_status. NULL: there is none. */
	void (*end_producer)(struct specimen *s);
	/* Of fences that are born signaled. */
	int born_status;
	int64_t born_timestamp;
	/* What end_producer makes of a pending fence. */
	int abandoned_status;
	/* The kind has a place in an order. */
	bool on_timeline;
	bool ordered;
	/* Not freed with its last reference. */
	bool immortal;
	/* Asking and hinting look for leaves, which takes memory. */
	bool has_leaves;
	/* The producer has a detach hook that counts in the specimen. */
	bool counts_detach;
};

#endif /* FAMILY_H */
