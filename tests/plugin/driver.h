/* SPDX-License-Identifier: MIT */
/* What the plug-in test's driver shows to its host. */
#ifndef DRIVER_H
#define DRIVER_H

#include <libfence/libfence.h>

/* The fences that the driver makes: of every kind, in every state. */
enum kind {
	KIND_SIGNALED, /* ordered, with hooks, signaled */
	KIND_FAILED, /* ordered, signaled with -EIO */
	KIND_ARMED, /* ordered, pending; the host adds a callback */
	KIND_PENDING, /* ordered, pending, nobody interested */
	KIND_WAITED, /* ordered, pending; a thread of the host waits for it */
	KIND_EMBEDDED, /* ordered, pending, inside a block of the driver's */
	KIND_POLLED, /* unordered, pending; a thread of the host asks for it all the time */
	KIND_ONE, /* unordered, signaled by itself */
	KIND_EMBEDDED_DONE, /* unordered, signaled, inside a block */
	KIND_WAITED_MANY, /* unordered, pending; a thread of the host waits for it among others */
	KIND_IN_CALLBACK, /* unordered; a thread of the host signals it, and is inside its callback */
	KIND_HOOKLESS, /* pending, of a timeline without hooks */
	KIND_LOST, /* emitted on a timeline that was lost */
	KIND_DROPPED, /* of a timeline that is gone already */
	KIND_ALONE, /* stand-alone, signaled */
	KIND_ALONE_PENDING, /* stand-alone, pending: the host signals it when the driver is gone */
	KIND_MADE_SIGNALED, /* lf_fence_create_signaled() */
	KIND_STUB, /* the stub */
	KIND_ARRAY, /* of one that is signaled and one that is pending */
	KIND_ANY, /* any of two that are pending */
	KIND_ANY_DONE, /* any of one that is signaled and one that is pending */
	KIND_LINK, /* of a chain: the first of two */
	KIND_CHAIN, /* the second one; the host waits for it */
	KIND_NESTED, /* array of the chain, of an array, and of the fence that the host asks for all the time; has a callback of the host */
	KIND_STILL_PENDING, /* array of a pending fence and KIND_ALONE_PENDING, which is signaled when the driver is gone */
	KIND_STILL_PENDING_CHAIN, /* the same as a chain that begins after the driver's fence, inside an array */
	KINDS
};

/* The driver's functions. The host must not be inside one of them when it unloads the driver. */
struct driver {
	int (*open)(void);
	/* A new reference on the fence of a kind. */
	struct lf_fence *(*fence)(enum kind kind);
	/* A new reference on the timeline of KIND_IN_CALLBACK. */
	struct lf_timeline *(*unordered)(void);
	/* Adds a callback of the driver to a fence of the host. */
	int (*watch)(struct lf_fence *f);
	/* A new reference on a buffer of the driver's: what it has left waits for KIND_PENDING. */
	struct lf_bo *(*buffer)(void);
	/*
	 * Attaches the driver to a buffer of the host's, and maps it. It maps again whenever it is told, and never unmaps. It maps it in an address
	 * space of its own, too, on a bind queue.
	 */
	int (*import)(struct lf_bo *bo);
	unsigned (*told)(void); /* calls of the invalidate hook */
	unsigned (*enabled)(void); /* calls of the enable hook */
	unsigned (*polled)(void); /* calls of the poll hook */
	unsigned (*attached)(void); /* fences with hooks that are not detached */
	/* What a driver does before it is unloaded: closes, takes its callbacks back, puts what is its own. */
	int (*close)(void);
};

/* The only symbol: const struct driver *driver_entry(void). */
typedef const struct driver *(*driver_entry_fn)(void);

#endif /* DRIVER_H */
