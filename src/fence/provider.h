/* SPDX-License-Identifier: MIT */
/*
 * Resources of a provider: what its code can be reached through: timelines, queues, buffers, attachments, address spaces.
 */
#ifndef LF_FENCE_PROVIDER_H
#define LF_FENCE_PROVIDER_H

#include <libfence/provider.h>

/* Embedded in the object that is the resource. Names and hooks are set by it before provider_add(); the rest is provider.c's. */
struct provider_resource {
	struct provider_resource *prev, *next; /* protected by the provider's mutex */
	const char *kind; /* for people: "timeline" */
	const char *name; /* lives as long as the resource */
	const void *code; /* an address inside the provider's code or tables, for debug builds; may be NULL */
	/*
	 * Ends the resource: nothing new, everything pending completes with -ENODEV. Called once, without locks, with the reference of
	 * tryget. The resource calls provider_remove(), then or later, when no code of the provider runs or will run through it.
	 */
	void (*revoke)(struct provider_resource *r);
	/* Takes a reference unless the resource is ending by itself. Called with the provider's mutex held, so it may only count. */
	bool (*tryget)(struct provider_resource *r);
	void (*put)(struct provider_resource *r);
	bool revoked; /* protected by the provider's mutex */
};

/* Registers a resource, taking a reference on @p. Returns 0 or -ESHUTDOWN. With @p NULL nothing happens. */
int provider_add(struct lf_provider *p, struct provider_resource *r);

/* Ends the registration, and puts the reference on @p. With @p NULL nothing happens. */
void provider_remove(struct lf_provider *p, struct provider_resource *r);

/* The name, which lives as long as @p. */
const char *provider_name(const struct lf_provider *p);

#endif /* LF_FENCE_PROVIDER_H */
