/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Attachments: another driver (the *importer*) that uses a buffer where it is, and is told when it moves.
 *
 * An importer attaches once, and maps as often as it likes. A mapping is of the place that the buffer was in when it was made. When
 * the buffer moves, the importer's invalidate hook is called: the old mapping stays valid, and the old place stays where it is, until
 * the importer unmaps it, which it must not do before its own fences on it have signaled. It may map the new place at once, from inside the
 * hook too: that mapping carries the fence from which it is valid. So several mappings live side by side, and nobody waits.
 */
#ifndef LIBFENCE_ATTACHMENT_H
#define LIBFENCE_ATTACHMENT_H

#include <libfence/bo.h>

LF_BEGIN_DECLS

struct lf_attachment;
struct lf_bo_map;

/** What an attachment is made from. */
struct lf_attachment_desc {
	const char *name; /**< of the importer, for people; copied; not NULL */
	/**
	 * Tells that the buffer has moved, or was revoked (lf_bo_is_revoked()): existing mappings are out of date and should be unmapped when
	 * the importer's fences on them have signaled; so not here, as a rule, but here is fine if there are none. Called with the buffer's
	 * reservation locked by this thread, and nothing locked by the library: it may map, unmap, detach, attach, and add fences to the
	 * reservation. Must not wait for fences. Of one attachment one call runs at a time. Not NULL.
	 */
	void (*invalidate)(struct lf_attachment *a, void *data);
	void *data; /**< handed to the hook */
	/**
	 * Whose code the hook is; takes a reference; may be NULL. Its close detaches, unmaps what is mapped (the driver's timelines were lost, so
	 * its device does nothing any more), and waits until no hook runs.
	 */
	struct lf_provider *provider;
};

/**
 * Attaches an importer to a buffer.
 *
 * @param bo takes a reference, until the attachment is gone
 * @param desc borrowed for the call
 * @param ret_attachment a new reference
 * @return 0; -ENOMEM; -ENODEV: the buffer was revoked; -EINVAL (reported): no name or hook; -ESHUTDOWN: the provider is closing; -EOWNERDEAD
 * in a poisoned child. May sleep like lf_fence_create().
 */
LF_API int lf_bo_attach(struct lf_bo *bo, const struct lf_attachment_desc *desc, struct lf_attachment **ret_attachment) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param a may be NULL
 * @return @p a
 */
LF_API struct lf_attachment *lf_attachment_get(struct lf_attachment *a);

/**
 * Consumes the caller's reference. The last one detaches; each mapping holds one.
 *
 * @param a may be NULL
 *
 * @par Context
 * Any; never blocks.
 */
LF_API void lf_attachment_put(struct lf_attachment *a);

/**
 * Detaches: the hook is not called any more, and nothing more is mapped. Mappings that there are stay until they are unmapped.
 *
 * @param a borrowed for the call; detaching again does nothing
 *
 * @par Context
 * Waits while the hook runs on another thread: two hooks that detach each other's attachments, or a hook that takes a lock which is held
 * here, wait for ever. From inside the hook itself it returns at once, and is allowed in callbacks; not in read sections.
 * @return 0: the hook does not run and never will, but for the call that the caller is inside of; -EDEADLK (reported): inside a read
 * section; it is detached all the same. -EINVAL (reported): @p a is NULL. -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_attachment_detach(struct lf_attachment *a);

/**
 * The buffer.
 *
 * @param a borrowed for the call
 * @return borrowed from the attachment
 */
LF_API struct lf_bo *lf_attachment_bo(const struct lf_attachment *a);

/**
 * The importer's name.
 *
 * @param a borrowed for the call
 * @return borrowed from the attachment
 */
LF_API const char *lf_attachment_name(const struct lf_attachment *a);

/**
 * How many mappings it has.
 *
 * @param a borrowed for the call
 * @return the number at this moment
 */
LF_API unsigned lf_attachment_mapped(const struct lf_attachment *a);

/**
 * Maps the buffer where it is now.
 *
 * @param a its buffer's reservation is locked by the caller
 * @param ret_map to be given to lf_bo_unmap(); holds a reference on the attachment
 *
 * @par Context
 * Like lf_fence_create(); also inside the invalidate hook.
 * @return 0; -ENOMEM; -ENODEV: the buffer was revoked, or the attachment detached; -EINVAL (reported): the reservation is not locked;
 * -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_attachment_map(struct lf_attachment *a, struct lf_bo_map **ret_map) LF_MUST_CHECK;

/**
 * Unmaps. The importer's fences on the mapping are signaled.
 *
 * @param map consumed; NULL does nothing. One that a provider's close has unmapped is only freed.
 *
 * @par Context
 * Any; never blocks, never fails.
 */
LF_API void lf_bo_unmap(struct lf_bo_map *map);

/**
 * The memory that is mapped.
 *
 * @param map borrowed for the call
 * @return what was given as lf_backing.memory, there until the unmap; NULL when the buffer was nowhere.
 */
LF_API void *lf_bo_map_memory(const struct lf_bo_map *map);

/**
 * The fence from which on the mapping is valid: what was in the reservation as LF_USAGE_KERNEL when it was made.
 *
 * @param map borrowed for the call
 * @return borrowed from the mapping; never NULL: the stub, or a signaled fence, when it is valid already.
 */
LF_API struct lf_fence *lf_bo_map_fence(const struct lf_bo_map *map);

LF_END_DECLS

#endif /* LIBFENCE_ATTACHMENT_H */
