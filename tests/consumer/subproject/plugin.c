/* SPDX-License-Identifier: MIT */
/* A plug-in with a libfence of its own, which says its end before it is unloaded. */
#include <libfence/libfence.h>

int plugin_run(void);

int plugin_run(void)
{
	struct lf_timeline *tl;
	struct lf_fence *f;
	int64_t tag = 0;

	if (lf_timeline_create(&(struct lf_timeline_desc){ .name = "plug-in" }, &tl) || lf_timeline_emit(tl, 1, &f))
		return 1;
	lf_read_lock(); /* from here on liburcu knows the thread, which outlives the plug-in */
	lf_fence_publish(f);
	lf_read_unlock();
	lf_timeline_signal_to(tl, 1, 0);
	tag = lf_fence_status(f);
	lf_fence_put(f);
	lf_timeline_put(tl);
	return tag == 1 ? lf_fini() : 1;
}
