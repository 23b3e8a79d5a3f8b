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

struct wb_membership {
	const struct wb_policy *policy;
	struct cgroup *cgroup;
	__u64 id;
	__u32 level;
	__s32 provider;
};

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

static long wb_scan_member(__u32 i, struct wb_membership *m)
{
	const struct wb_provider *p;
	__u64 id = m->id;

	if (i >= WB_MAX_PROVIDERS)
		return 1;
	p = &m->policy->providers[i];
	if (!p->cgroup || m->level < p->cgroup_level)
		return 0;
	if (m->level > p->cgroup_level)
		id = wb_ancestor_id(m->cgroup, p->cgroup_level);
	if (id != p->cgroup)
		return 0;
	m->provider = i;
	return 1;
}

/* The index of the provider in whose cgroup, or below it, a task runs; -1: none. */
static __always_inline int wb_task_provider(const struct wb_policy *policy, struct task_struct *task)
{
	struct cgroup *cgroup = task->cgroups->dfl_cgrp;
	struct wb_membership m = {
		.policy = policy,
		.cgroup = cgroup,
		.id = cgroup->kn->id,
		.level = cgroup->level,
		.provider = -1,
	};

	bpf_loop(policy->n_providers, wb_scan_member, &m, 0);
	return m.provider;
}

static __always_inline int wb_current_provider(const struct wb_policy *policy)
{
	return wb_task_provider(policy, bpf_get_current_task_btf());
}

/* What to write on a listening socket of a task's. False: the task is no provider's. */
static __always_inline bool wb_make_mark(const struct wb_policy *policy, struct task_struct *task,
					 struct wb_listener *mark)
{
	int provider = wb_task_provider(policy, task);
	const struct wb_provider *p;

	if (provider < 0)
		return false;
	p = &policy->providers[provider & (WB_MAX_PROVIDERS - 1)];
	mark->handle = p->handle;
	mark->cgroup = p->cgroup;
	return true;
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
