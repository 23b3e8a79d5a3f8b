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

/* The index of the provider whose processes are in this cgroup, or above it; -1: none. */
static __always_inline int wb_provider_of(const struct wb_policy *policy, struct cgroup *cgroup)
{
	struct wb_membership m = { .policy = policy, .provider = -1 };

	wb_read_cgroup(&m.cgroup, cgroup);
	bpf_loop(policy->n_providers, wb_scan_member, &m, 0);
	return m.provider;
}

/* The index of the provider in whose cgroup, or below it, the current task runs; -1: none. */
static __noinline int wb_current_provider(const struct wb_policy *policy)
{
	return wb_provider_of(policy, bpf_get_current_task_btf()->cgroups->dfl_cgrp);
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
static __always_inline void wb_describe_current(struct wb_process *p, __u64 netns_cookie, __u64 flow_id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;
	const struct cred *cred = task->cred;

	p->pid = task->pid;
	p->tgid = task->tgid;
	p->uid = cred->euid.val;
	p->gid = cred->egid.val;
	p->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	p->netns_cookie = netns_cookie;
	p->start_time = leader->start_boottime;
	p->flow_id = flow_id;
	__builtin_memset(p->comm, 0, sizeof(p->comm));
	bpf_probe_read_kernel_str(p->comm, sizeof(p->comm), leader->comm);
}

static __always_inline __u64 wb_new_flow_id(void)
{
	return (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
}

/* The executable of the current process, by the identity of its inode. */
static __always_inline void wb_current_program(__u64 *inode, __u32 *device)
{
	struct inode *exe = bpf_get_current_task_btf()->mm->exe_file->f_inode;

	*inode = exe->i_ino;
	*device = exe->i_sb->s_dev;
}

struct wb_climb {
	struct wb_class_key key;
	__u32 level;
	__u64 found;
	struct cgroup *cgroup;            /* whose ancestors to look at; or */
	const struct wb_lineage *lineage; /* these */
};

static long wb_climb_step(__u32 i, struct wb_climb *c)
{
	__u32 level = c->level - i;
	const struct wb_set *set;
	__u64 id;

	if (!c->lineage)
		id = wb_ancestor_id(c->cgroup, level);
	else if (level < WB_MAX_LINEAGE)
		id = c->lineage->ids[level];
	else
		return 0;
	c->key.data[0] = id;
	c->key.data[1] = id >> 32;
	set = bpf_map_lookup_elem(&classes, &c->key);
	if (!set || !set->exact)
		return 0;
	c->found = id;
	return 1;
}

/* The deepest of a process's cgroups that some filter names; 0: none. */
static __always_inline __u64 wb_climb(struct wb_climb *c, const struct wb_policy *policy, __u32 level)
{
	c->key.prefix_bits = WB_CLASS_FIXED_BITS + 128;
	c->key.generation = policy->generation;
	c->key.dimension = WB_CGROUP;
	c->level = level;
	bpf_loop(level + 1, wb_climb_step, c, 0);
	return c->found;
}

static __always_inline __u64 wb_current_named_cgroup(const struct wb_policy *policy)
{
	struct cgroup *cgroup = bpf_get_current_task_btf()->cgroups->dfl_cgrp;
	struct wb_climb c = { .cgroup = cgroup };

	return wb_climb(&c, policy, cgroup->level);
}

static __always_inline __u64 wb_origin_named_cgroup(const struct wb_policy *policy, __u64 cgroup_id)
{
	struct wb_climb c = { .lineage = bpf_map_lookup_elem(&lineages, &cgroup_id) };

	return c.lineage ? wb_climb(&c, policy, WB_MAX_LINEAGE - 1) : 0;
}

static const struct wb_lineage wb_no_lineage;

struct wb_descent {
	struct cgroup *cgroup;
	struct wb_lineage *lineage;
};

static long wb_descend(__u32 level, struct wb_descent *d)
{
	if (level >= WB_MAX_LINEAGE)
		return 1;
	d->lineage->ids[level] = wb_ancestor_id(d->cgroup, level);
	return 0;
}

/*
 * Keep what leads from the current process's cgroup to those above it, for the
 * connections that follow this one. The entry is filled in place: it is too
 * large for the stack, and two that do so at once write the same.
 */
static __always_inline void wb_keep_lineage(void)
{
	struct cgroup *cgroup = bpf_get_current_task_btf()->cgroups->dfl_cgrp;
	struct wb_descent d = { .cgroup = cgroup };
	__u64 id = cgroup->kn->id;

	if (bpf_map_lookup_elem(&lineages, &id) || bpf_map_update_elem(&lineages, &id, &wb_no_lineage, BPF_ANY))
		return;
	d.lineage = bpf_map_lookup_elem(&lineages, &id);
	if (d.lineage)
		bpf_loop(cgroup->level + 1, wb_descend, &d, 0);
}

#endif /* WB_PROCESS_H */
