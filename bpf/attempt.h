/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* One connect() under way: what is known of it, who makes it, and the report of what became of it. */
#ifndef WB_ATTEMPT_H
#define WB_ATTEMPT_H

#include "policy.h"
#include "process.h"
#include "records.h"

struct wb_attempt {
	struct bpf_sock_addr *ctx;
	const struct wb_policy *policy;
	struct wb_socket *socket; /* NULL: it has none, or there was no memory for it */
	struct wb_query query;
	struct wb_decision decision;
	__u64 shadowed; /* by the filters that authorize */
	__u32 error;    /* of a refusal; 0: EACCES */
	__u32 reserved;
};

static __always_inline const struct wb_provider *wb_chosen(const struct wb_attempt *a)
{
	return &a->policy->providers[a->decision.provider & (WB_MAX_PROVIDERS - 1)];
}

/*
 * Find out who connects, and who did at the start of the chain, as far as some
 * filter asks. `records` are NULL if there are none. A global function, as
 * wb_decide() is: walked once, and with a stack of its own only while it runs.
 */
__noinline int wb_identify(const struct wb_policy *policy, const struct wb_records *records, struct wb_query *query)
{
	__u32 flags;

	if (!policy || !query)
		return 0;
	flags = policy->flags;
	if (flags & WB_ASKS_PROGRAM)
		wb_current_program(&query->process.inode, &query->process.device);
	if (flags & WB_ASKS_USER)
		query->process.uid = bpf_get_current_task_btf()->cred->euid.val;
	if (flags & WB_ASKS_CGROUP)
		query->process.cgroup = wb_current_named_cgroup(policy);
	query->origin = query->process;
	if (!records)
		return 0;
	query->origin.inode = records->inode;
	query->origin.device = records->device;
	query->origin.uid = records->origin.uid;
	if (flags & WB_ASKS_CGROUP)
		query->origin.cgroup = wb_origin_named_cgroup(policy, records->origin.cgroup_id);
	return 0;
}

/* The command line tells a flow's program even when it has ended before anybody could look. */
static __always_inline void wb_read_args(struct wb_outcome *o)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;
	__u64 start = mm->arg_start, size = mm->arg_end - start;

	if (size > WB_MAX_ARGS)
		size = WB_MAX_ARGS;
	if (!bpf_probe_read_user(o->args, size, (void *)start))
		o->n_args = size;
}

/*
 * Tell user space what became of the connect(). Connections that nobody wanted
 * are only counted. `records` are those of the socket, with the hop that was
 * just added; NULL: it has none.
 */
__noinline int wb_report_outcome(const struct wb_policy *policy, const struct wb_query *query,
				 const struct wb_decision *d, const struct wb_records *records, __u64 netns_cookie)
{
	struct wb_outcome *o;
	__u64 skipped;

	if (!policy || !query || !d)
		return 0;
	skipped = d->bypassed | d->shadowed | (query->self >= 0 ? d->excluded : 0);
	if (d->verdict == WB_PASS && !records && !skipped)
		return 0;
	o = bpf_ringbuf_reserve(&events, sizeof(*o), 0);
	if (!o) {
		wb_count(WB_EVENTS_LOST);
		return 0;
	}
	__builtin_memset(o, 0, sizeof(*o));
	o->event.time = bpf_ktime_get_boot_ns();
	o->event.flow_id = records ? records->origin.flow_id : wb_new_flow_id();
	o->event.kind = WB_EVENT_OUTCOME;
	o->event.hop = records ? wb_hop_number(records, query->n_hops) : 0;
	if (d->verdict != WB_PASS)
		o->event.provider = policy->providers[d->provider & (WB_MAX_PROVIDERS - 1)].handle;
	wb_describe_current(&o->process, netns_cookie, o->event.flow_id);
	wb_current_program(&o->inode, &o->device);
	o->generation = policy->generation;
	o->dst = query->dst;
	o->verdict = d->verdict;
	o->state = d->state;
	o->filter = d->filter;
	o->kinship = query->kinship;
	o->bypassed = d->bypassed;
	o->shadowed = d->shadowed;
	o->excluded = d->excluded;
	if (!query->n_hops)
		wb_read_args(o);
	bpf_ringbuf_submit(o, 0);
	return 0;
}

#endif /* WB_ATTEMPT_H */
