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
	struct wb_peer *peer; /* of UDP: the flow, once it is known */
	__u64 shadowed;       /* by the filters that authorize */
	__u16 error;          /* of a refusal; 0: EACCES */
	__u8 datagram;        /* it is one without a connection */
	__u8 known;           /* and goes on with a flow that has been reported */
	__u8 aside;           /* and is not for whom its socket is connected to */
	__u8 goes_to;         /* enum wb_goes_to */
	__u8 n_hops;          /* of the query, while another is asked */
	__s8 self;            /* likewise */
};

/* Stacks are small: where something goes follows from what is in struct wb_attempt already. */
enum wb_goes_to {
	WB_STAYS,     /* where it was going */
	WB_TO_PROXY,  /* of the peer or, if there is none, of the socket */
	WB_TO_CLIENT, /* of the peer */
};

static __always_inline bool wb_is_udp(const struct wb_attempt *a)
{
	return a->query.dst.protocol == IPPROTO_UDP;
}

/* Where it goes instead; NULL: it stays as it is. */
static __noinline const struct wb_endpoint *wb_new_dst(const struct wb_attempt *a)
{
	if (a->goes_to == WB_STAYS)
		return NULL;
	if (a->peer)
		return a->goes_to == WB_TO_CLIENT ? &a->peer->client : &a->peer->socket.proxy;
	return a->socket ? &a->socket->proxy : NULL;
}

/* The source that a datagram gets; NULL: it stays as it is. */
static __noinline const __be32 *wb_new_source(const struct wb_attempt *a)
{
	if (a->goes_to == WB_STAYS || !a->peer)
		return NULL;
	/* What a connected socket receives has to come from where it is connected to. */
	if (a->goes_to == WB_TO_CLIENT && a->peer->flags & WB_PEER_CONNECTED)
		return a->peer->socket.proxy.addr;
	return a->peer->addr;
}

/* The user at the start of the flow. */
static __always_inline __u32 wb_user_of(const struct wb_attempt *a)
{
	__u32 uid = bpf_get_current_task_btf()->cred->euid.val;

	wb_keep_bound(uid); /* or clang makes one load of both, which the verifier refuses */
	if (a->socket && a->socket->carried)
		uid = a->socket->records.origin.uid;
	return uid;
}

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

static __always_inline void wb_identify_if_asked(struct wb_attempt *a)
{
	if (a->policy->flags & (WB_ASKS_PROGRAM | WB_ASKS_USER | WB_ASKS_CGROUP))
		wb_identify(a->policy, a->query.n_hops && a->socket ? &a->socket->records : NULL, &a->query);
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

/* Connections that nobody wanted are only counted. */
static __always_inline bool wb_is_worth_telling(const struct wb_query *query, const struct wb_decision *d,
						const struct wb_records *records)
{
	return d->verdict != WB_PASS || records || d->bypassed | d->shadowed | (query->self >= 0 ? d->excluded : 0);
}

#define WB_TELL_AGAIN (60 * 1000000000ULL)

static const struct wb_told wb_nothing_told;

/*
 * Whether there is anything new to tell of a datagram. Where it goes to a proxy,
 * that begins a flow, which is told once. Where it does not, nothing else tells
 * the next one from it, and a program can try a million times a second: so that
 * is told once, too, again when it is another thing, and once a minute.
 */
static __noinline bool wb_is_news(struct wb_attempt *a)
{
	struct wb_destination_key key = { .cookie = bpf_get_socket_cookie(a->ctx), .dst = a->query.dst };
	const struct wb_decision *d = &a->decision;
	__u64 now = bpf_ktime_get_boot_ns();
	struct wb_told *t;

	if (d->verdict == WB_REDIRECT) {
		bpf_map_delete_elem(&told, &key);
		return true;
	}
	t = bpf_map_lookup_elem(&told, &key);
	if (t && now - t->time < WB_TELL_AGAIN && t->generation == a->policy->generation && t->verdict == d->verdict &&
	    t->filter == d->filter && t->bypassed == d->bypassed && t->shadowed == d->shadowed &&
	    t->excluded == d->excluded)
		return false;
	if (!t && !bpf_map_update_elem(&told, &key, &wb_nothing_told, BPF_ANY))
		t = bpf_map_lookup_elem(&told, &key);
	if (t) {
		t->time = now;
		t->generation = a->policy->generation;
		t->verdict = d->verdict;
		t->filter = d->filter;
		t->bypassed = d->bypassed;
		t->shadowed = d->shadowed;
		t->excluded = d->excluded;
	}
	return true;
}

/*
 * Describe what became of the connect(). `records` are those of the socket,
 * with the hop that was just added; NULL: it has none. Of o only the cookie of
 * the network namespace is there already.
 */
__noinline int wb_describe_outcome(const struct wb_policy *policy, const struct wb_query *query,
				   const struct wb_decision *d, const struct wb_records *records, struct wb_outcome *o)
{
	__u64 netns_cookie;

	if (!policy || !query || !d || !o)
		return 0;
	netns_cookie = o->process.netns_cookie;
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
	return 0;
}

#endif /* WB_ATTEMPT_H */
