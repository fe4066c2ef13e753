/* SPDX-License-Identifier: MIT */
/* The same from C++17: a stand-alone fence, signaled by a std::thread, with the reference in a std::unique_ptr. */
#include <cstdio>
#include <memory>
#include <thread>

#include <libfence/libfence.h>

struct put {
	void operator()(lf_fence *f) const { lf_fence_put(f); }
};
using fence = std::unique_ptr<lf_fence, put>;

struct answer {
	lf_fence_cb cb{};
	int value = 0;
};

int main()
{
	lf_fence *raw;
	answer a;

	if (lf_fence_create(&raw))
		return 1;
	fence f(raw);
	if (lf_fence_add_callback(f.get(), &a.cb, [](lf_fence *, lf_fence_cb *cb) { reinterpret_cast<answer *>(cb)->value = 42; }))
		return 1;
	fence theirs(lf_fence_get(f.get()));
	std::thread producer([&theirs] { lf_fence_signal(theirs.get(), 0); });
	int waited = lf_fence_wait_drained(f.get(), lf_now() + INT64_C(10000000000));
	producer.join();
	bool well = waited == 0 && a.value == 42 && lf_fence_status(f.get()) == 1;
	theirs.reset();
	f.reset();
	well = lf_fini() == 0 && well;
	std::printf("consumer in C++: %s\n", well ? "all well" : "with mistakes");
	return well ? 0 : 1;
}
