/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The few fields of kernel structs that we read. CO-RE finds their offsets at
 * load time, so a generated vmlinux.h of 150,000 lines is not needed.
 */
#ifndef WB_KERNEL_H
#define WB_KERNEL_H

#include <linux/types.h>

#define WB_PF_KTHREAD 0x00200000
#define WB_CAP_NET_ADMIN 12
#define WB_SOCK_BINDADDR_LOCK 4

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded" /* the kernel's layout, not ours */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

struct user_namespace {
	int level; /* 0: the initial namespace */
};

/* Two 32-bit words before Linux 6.3 (f122a08b197d), one 64-bit word since: on little endian the low 32 bits agree. */
struct kernel_cap {
	__u32 low;
};

struct cred {
	kuid_t euid;
	kgid_t egid;
	struct kernel_cap cap_effective;
	struct user_namespace *user_ns;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[0]; /* by level, itself included; since 6.1 (7f203bc89eb6) */
};

struct css_set {
	struct cgroup *dfl_cgrp; /* in the cgroup v2 hierarchy */
};

struct super_block {
	__u32 s_dev;
};

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
};

struct file {
	struct inode *f_inode;
};

struct mm_struct {
	struct file *exe_file;
	unsigned long arg_start;
	unsigned long arg_end;
};

struct task_struct {
	unsigned int flags;
	struct mm_struct *mm;
	int pid;
	int tgid;
	__u64 start_boottime;
	struct task_struct *group_leader;
	const struct cred *cred;
	char comm[16];
	struct css_set *cgroups;
};

struct in6_addr {
	__be32 s6_addr32[4];
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	struct {
		__s64 counter;
	} skc_cookie;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock {
	struct sock_common __sk_common;
	struct sock_cgroup_data sk_cgrp_data; /* of the process that created it */
	unsigned char sk_userlocks : 4;       /* what its program has chosen itself */
	int sk_err;
	__u32 sk_ack_backlog; /* of a listener: connections that wait for accept() */
	__u32 sk_max_ack_backlog;
};

struct request_sock {
	struct sock *sk; /* the connection */
};

struct request_sock_queue {
	struct request_sock *rskq_accept_head; /* the oldest */
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct request_sock_queue icsk_accept_queue;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	struct {
		__u64 time; /* microseconds (ktime): when it was established, until somebody reads from it */
	} rcvq_space;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop
#pragma clang diagnostic pop

#endif /* WB_KERNEL_H */
