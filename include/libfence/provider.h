/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Providers: the code of a driver, and the way to let go of it.
 *
 * What a driver's code is reachable through is a *resource* of its provider: timelines with the hooks of their fences, queues, attachments,
 * buffers with their release hooks, address spaces with theirs. Closing the provider ends timelines, queues and attachments, and waits for
 * buffers and address spaces, which are the driver's to put; then its shared object can be unloaded, however many of its fences others still
 * hold.
 */
#ifndef LIBFENCE_PROVIDER_H
#define LIBFENCE_PROVIDER_H

#include <libfence/base.h>

LF_BEGIN_DECLS

struct lf_provider;

/**
 * Registers a driver's code.
 *
 * @param name copied; not NULL
 * @param ret_provider a new reference
 * @return 0; -ENOMEM; -EINVAL (reported): no name; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_provider_create(const char *name, struct lf_provider **ret_provider) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param p may be NULL
 * @return @p p
 */
LF_API struct lf_provider *lf_provider_get(struct lf_provider *p);

/**
 * Consumes the caller's reference. Each of its resources holds one, so a provider that is put without being closed lasts as
 * long as they.
 *
 * @param p may be NULL
 */
LF_API void lf_provider_put(struct lf_provider *p);

/**
 * Ends all that is reachable of the provider's code: every timeline is lost with -ENODEV, which completes its fences; queues are closed,
 * attachments detached and unmapped, address spaces banned; nothing new can be made. Then waits until no hook runs, every fence is
 * detached, and the driver's buffers and address spaces are gone.
 *
 * After a return of 0 no instruction of the driver is called any more, whoever holds its fences. What remains to the driver: to let go of
 * its own references (puts are fine before or after), and to cancel callbacks that *it* added to fences of others, before or after;
 * those are its own, and so are functions that it gave to lf_defer_call() (lf_reclaim_barrier() waits for them; not needed for what a
 * provider owns), its notices, ticket classes in its image that reservations of others use, and a clock, log or allocator that it set. Run
 * hooks of its queues may be called until then, also for jobs whose dependencies are lost by the close. A build with debug checks names callbacks left on tracked fences (lf_track()) whose function lies in the same
 * shared object as the hooks.
 *
 * @param p borrowed for the call
 * @param deadline absolute nanoseconds; 0 closes without waiting
 *
 * @par Context
 * Waits. Callbacks of the fences run here.
 * @return 0: closed. -ETIME: something is left, which the log (LF_LOG_WARNING) names; it is closed to new things, and can be closed again
 * to wait on; the code must stay until that says 0. -EDEADLK (reported): from inside a hook of this provider, a callback, a deferred call or a read section; nothing was done.
 * -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_provider_close(struct lf_provider *p, int64_t deadline) LF_MUST_CHECK;

LF_END_DECLS

#endif /* LIBFENCE_PROVIDER_H */
