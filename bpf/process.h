/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Who is calling: the current task, its rights, and the provider it belongs to. */
#ifndef WB_PROCESS_H
#define WB_PROCESS_H

#include "kernel.h"
#include "maps.h"

/* NFS, SMB and the like connect from kernel threads, and cope badly with being redirected. */
static __always_inline bool wb_current_is_kernel(void)
{
	return bpf_get_current_task_btf()->flags & WB_PF_KTHREAD;
}

/* CAP_NET_ADMIN in the initial user namespace: root of a container's own namespace does not count. */
static __always_inline bool wb_current_is_admin(void)
{
	const struct cred *cred = bpf_get_current_task_btf()->cred;
	__u32 caps = 0;

	if (cred->user_ns->level != 0)
		return false;
	bpf_probe_read_kernel(&caps, sizeof(caps), &cred->cap_effective);
	return caps & (1U << WB_CAP_NET_ADMIN);
}

static __always_inline __u64 wb_ancestor_id(struct cgroup *cgroup, __u32 level)
{
	struct cgroup *ancestor = NULL;
	struct kernfs_node *kn = NULL;
	__u64 id = 0;

	bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
			      (void *)cgroup + bpf_core_field_offset(struct cgroup, ancestors) +
				      level * sizeof(ancestor));
	if (ancestor && !bpf_probe_read_kernel(&kn, sizeof(kn), &ancestor->kn))
		bpf_probe_read_kernel(&id, sizeof(id), &kn->id);
	return id;
}

/* A cgroup, read so that many others can be compared with it. */
struct wb_cgroup {
	struct cgroup *cgroup;
	__u64 id;
	__u32 level;
	__u32 reserved;
};

static __always_inline void wb_read_cgroup(struct wb_cgroup *c, struct cgroup *cgroup)
{
	c->cgroup = cgroup;
	c->id = cgroup->kn->id;
	c->level = cgroup->level;
	c->reserved = 0;
}

/* Whether c is the cgroup with this id, which stands at this level, or below it. */
static __always_inline bool wb_is_in_cgroup(const struct wb_cgroup *c, __u64 id, __u32 level)
{
	if (c->level < level)
		return false;
	return (c->level == level ? c->id : wb_ancestor_id(c->cgroup, level)) == id;
}

struct wb_membership {
	const struct wb_policy *policy;
	struct wb_cgroup cgroup;
	__s32 provider;
	__u32 reserved;
};

static long wb_scan_member(__u32 i, struct wb_membership *m)
{
	const struct wb_provider *p;

	if (i >= WB_MAX_PROVIDERS)
		return 1;
	p = &m->policy->providers[i];
	if (!p->cgroup || !wb_is_in_cgroup(&m->cgroup, p->cgroup, p->cgroup_level))
		return 0;
	m->provider = i;
	return 1;
}

/* The index of the provider in whose cgroup, or below it, the current task runs; -1: none. */
static __always_inline int wb_current_provider(const struct wb_policy *policy)
{
	struct wb_membership m = { .policy = policy, .provider = -1 };

	wb_read_cgroup(&m.cgroup, bpf_get_current_task_btf()->cgroups->dfl_cgrp);
	bpf_loop(policy->n_providers, wb_scan_member, &m, 0);
	return m.provider;
}

/*
 * Whether a process of this cgroup, or below it, created the socket. Accepted
 * sockets have it from their listener, and those of MPTCP from the one that
 * the program sees. The kernel keeps it for the socket's life, so there is
 * nothing to mark, nothing to adopt, and nothing to go stale.
 */
static __always_inline bool wb_socket_is_of(struct bpf_sock *sk, __u64 id, __u32 level)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct cgroup *cgroup;
	struct wb_cgroup c;

	if (!tp)
		return false;
	cgroup = tp->inet_conn.icsk_inet.sk.sk_cgrp_data.cgroup;
	if (!cgroup)
		return false;
	wb_read_cgroup(&c, cgroup);
	return wb_is_in_cgroup(&c, id, level);
}

/*
 * Describe the current process. The group leader speaks for it: io_uring
 * connects from worker threads that carry a name of their own.
 */
static __always_inline void wb_describe_current(struct waybill_origin *o, __u64 netns_cookie)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;
	const struct cred *cred = task->cred;

	o->pid = task->pid;
	o->tgid = task->tgid;
	o->uid = cred->euid.val;
	o->gid = cred->egid.val;
	o->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	o->netns_cookie = netns_cookie;
	o->start_time = leader->start_boottime;
	o->flow_id = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
	__builtin_memset(o->comm, 0, sizeof(o->comm));
	bpf_probe_read_kernel_str(o->comm, sizeof(o->comm), leader->comm);
}

#endif /* WB_PROCESS_H */
