/* The parts of the kernel's own structs that the programs read. The loader replaces every offset by
 * the one of the running kernel, by its BTF, so only the names and the kinds of the fields count.
 * A suffix of three underscores does not belong to the name: it allows two forms of one struct. */
#ifndef KERNEL_TYPES_H
#define KERNEL_TYPES_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

/* `numbers` has an element for each PID namespace that the task is in, the root one first. */
struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct mm_struct;

/* Empty without CONFIG_SCHED_INFO. */
struct sched_info {
	unsigned long long run_delay;
};

struct task_struct {
	int pid;
	int tgid;
	struct mm_struct *mm;
	unsigned long jobctl;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct sched_info sched_info;
};

/* 5.14 and later. */
struct task_struct___new {
	unsigned int __state;
};

struct task_struct___old {
	long state;
};

struct thread_struct___x86 {
	unsigned long fsbase;
};

struct task_struct___x86 {
	struct thread_struct___x86 thread;
};

struct pt_regs___x86 {
	unsigned long di;
	unsigned long si;
	unsigned long orig_ax;
};

struct thread_words___arm64 {
	unsigned long tp_value;
};

struct thread_struct___arm64 {
	struct thread_words___arm64 uw;
};

struct task_struct___arm64 {
	struct thread_struct___arm64 thread;
};

struct pt_regs___arm64 {
	unsigned long long regs[31];
	unsigned long long orig_x0;
	int syscallno;
};

#pragma clang attribute pop

/* Values of `__state`. A task that may be killed or frozen has more bits. */
#define TASK_STOPPED_OR_TRACED 0x000c
#define TASK_DEAD 0x0080
#define TASK_FROZEN 0x8000
/* `jobctl`: the cgroup is frozen. */
#define JOBCTL_TRAP_FREEZE (1ul << 23)

#endif
