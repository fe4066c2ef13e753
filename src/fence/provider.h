/* SPDX-License-Identifier: MIT */
/*
 * Resources of a provider: what its code can be reached through: timelines, queues, buffers, attachments, address spaces.
 */
#ifndef LF_FENCE_PROVIDER_H
#define LF_FENCE_PROVIDER_H

#include <libfence/provider.h>

/* Embedded in the object that is the resource. Names, refs and hooks are set by it before provider_add(); the rest is provider.c's. */
struct provider_resource {
	struct provider_resource *prev, *next; /* protected by the provider's mutex */
	struct lf_provider *provider; /* immutable since provider_add(); the registration has the reference; NULL: of none */
	const char *kind; /* for people: "timeline" */
	const char *name; /* lives as long as the resource */
	const void *code; /* an address inside the provider's code or tables, for debug builds; may be NULL */
	/*
	 * Ends the resource: nothing new, everything pending completes with -ENODEV. Called once, without locks, with a reference of
	 * refs. The resource calls provider_remove(), then or later, when no code of the provider runs or will run through it.
	 */
	void (*revoke)(struct provider_resource *r);
	lf_atomic_u32 *refs; /* keeps the resource; a close takes one, unless it is ending by itself */
	void (*put)(struct provider_resource *r); /* what a close took */
	bool revoked; /* protected by the provider's mutex */
};

/* Registers a resource, taking a reference on @p. Returns 0 or -ESHUTDOWN. With @p NULL it is nobody's. */
int provider_add(struct lf_provider *p, struct provider_resource *r);

/* Ends the registration, and puts the reference on the provider. Nothing happens when it has none. */
void provider_remove(struct provider_resource *r);

/* The name, which lives as long as @p. */
const char *provider_name(const struct lf_provider *p);

#endif /* LF_FENCE_PROVIDER_H */
