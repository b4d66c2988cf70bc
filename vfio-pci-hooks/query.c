// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queries: who reads or writes migration_version asks the worker and waits. They go
 * by the channel's descriptor and know nothing of sessions, opens and resets, so
 * that a device answers before its VMM is there.
 *
 * A query ends in one of these ways, and is then unknown to everybody but who asked:
 *
 *	answered	NEXT_QUERY names its id
 *	ENOTCONN	nobody serves the device, or who was given the query has ended
 *	ETIMEDOUT	no answer within state_limit_ms
 *	ENODEV		the function leaves the driver
 *	ERESTARTSYS	who asked got a signal, or is to be frozen
 */
#include <linux/cleanup.h>
#include <linux/jiffies.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vfio_pci_hooks_priv.h"
#include "trace.h"

static void vph_query_end(struct vph_channel *ch, struct vph_query *query, int error)
{
	lockdep_assert_held(&ch->lock);
	trace_query(ch->def->pdev, query->what, query->id, query->answer, error);
	list_del(&query->node);
	query->open = false;
	query->error = error;
	complete(&query->done);
}

/* Something came up for NEXT_QUERY. */
void vph_query_wake_locked(struct vph_channel *ch)
{
	lockdep_assert_held(&ch->lock);
	WRITE_ONCE(ch->query_activity, ch->query_activity + 1);
	wake_up_interruptible(&ch->query_wait);
}

/* ------------------------------------------------------------------- who asks */

static int vph_query_post(struct vph_channel *ch, struct vph_query *query)
{
	guard(mutex)(&ch->lock);
	if (ch->queries_over)
		return -ENODEV;
	if (!ch->attached)
		return -ENOTCONN;
	query->id = ++ch->query_id;
	query->open = true;
	/* Only root writes, and does not queue behind everybody who reads. */
	if (query->what == VFIO_PCI_HOOKS_QUERY_WRITE)
		list_add(&query->node, &ch->queries);
	else
		list_add_tail(&query->node, &ch->queries);
	vph_query_wake_locked(ch);
	return 0;
}

/* 0: answered, by query->answer. No lock is held; what and text are the caller's. */
int vph_query_ask(struct vph_channel *ch, struct vph_query *query)
{
	long left;
	int ret;

	init_completion(&query->done);
	query->owner = NULL;
	query->answer = 0;
	ret = vph_query_post(ch, query);
	if (ret)
		return ret;

	left = wait_for_completion_interruptible_timeout(&query->done,
							 msecs_to_jiffies(ch->def->state_limit_ms));

	guard(mutex)(&ch->lock);
	if (query->open) {
		if (left < 0)
			ret = left;
		else
			ret = query->owner || ch->query_server ? -ETIMEDOUT : -ENOTCONN;
		vph_query_end(ch, query, ret);
	}
	return query->error;
}

/* ---------------------------------------------------------------- who answers */

static struct vph_query *vph_query_find(struct vph_channel *ch, u64 id)
{
	struct vph_query *query;

	list_for_each_entry(query, &ch->queries, node)
		if (query->id == id)
			return query;
	return NULL;
}

static bool vph_query_answer_is_valid(const struct vph_query *query, s32 answer, const char *text,
				      u32 length)
{
	if (answer)
		return answer < 0 && answer >= -VPH_MAX_ANSWER_ERRNO;
	return query->what != VFIO_PCI_HOOKS_QUERY_READ ||
	       (length && vph_is_printable(text, length));
}

static int vph_query_take(struct vph_channel *ch, const struct vfio_pci_hooks_next_query *next,
			  const char *text)
{
	struct vph_query *query;

	guard(mutex)(&ch->lock);
	query = vph_query_find(ch, next->answered);
	/* Only what was given out can be answered. */
	if (!query || !query->owner ||
	    !vph_query_answer_is_valid(query, next->answer, text, next->length))
		return -EINVAL;
	query->answer = next->answer;
	query->length = next->length;
	memcpy(query->text, text, next->length);
	query->text[next->length] = 0;
	vph_query_end(ch, query, 0);
	return 0;
}

static int vph_query_answer(struct vph_channel *ch, const struct vfio_pci_hooks_next_query *next)
{
	char *text __free(kfree) = NULL;

	if (next->length >= VFIO_PCI_HOOKS_VERSION_LEN)
		return -EINVAL;
	text = memdup_user_nul(u64_to_user_ptr(next->text), next->length);
	if (IS_ERR(text))
		return PTR_ERR(text);
	return vph_query_take(ch, next, text);
}

static struct vph_query *vph_query_first(struct vph_channel *ch)
{
	struct vph_query *query;

	lockdep_assert_held(&ch->lock);
	list_for_each_entry(query, &ch->queries, node)
		if (!query->owner)
			return query;
	return NULL;
}

/* Whether one was there, in next and text; -ENODEV: none ever will. */
static int vph_query_give(struct vph_channel *ch, struct vfio_pci_hooks_next_query *next,
			  char *text, unsigned long *activity)
{
	struct vph_query *query;

	guard(mutex)(&ch->lock);
	*activity = ch->query_activity;
	if (ch->gone)
		return -ENODEV;
	ch->query_server = current->files;
	query = vph_query_first(ch);
	if (!query)
		return 0;
	query->owner = current->files;
	next->id = query->id;
	next->what = query->what;
	next->length = query->length;
	memcpy(text, query->text, query->length);
	return 1;
}

/* It could not be handed over after all. */
static void vph_query_give_back(struct vph_channel *ch, u64 id)
{
	struct vph_query *query;

	guard(mutex)(&ch->lock);
	query = vph_query_find(ch, id);
	if (!query)
		return;
	query->owner = NULL;
	vph_query_wake_locked(ch);
}

static int vph_query_await(struct vph_channel *ch, struct vfio_pci_hooks_next_query *next,
			   char *text)
{
	long left = next->timeout_ms < 0 ? MAX_SCHEDULE_TIMEOUT :
					   msecs_to_jiffies(next->timeout_ms);
	unsigned long activity;
	int ret;

	for (;;) {
		ret = vph_query_give(ch, next, text, &activity);
		if (ret)
			return ret < 0 ? ret : 0;
		if (!left)
			return -ETIME;
		left = wait_event_interruptible_timeout(ch->query_wait,
							READ_ONCE(ch->query_activity) != activity,
							left);
		if (left < 0)
			return left;
	}
}

long vph_query_next(struct vph_channel *ch, void __user *arg)
{
	struct vfio_pci_hooks_next_query __user *user = arg;
	struct vfio_pci_hooks_next_query next;
	char *text __free(kfree) = NULL;
	void __user *buffer;
	u32 argsz;
	int ret;

	ret = vph_copy_in(&next, sizeof(next), arg);
	if (ret)
		return ret;
	if (next.flags)
		return -EINVAL;
	if (next.answered) {
		ret = vph_query_answer(ch, &next);
		if (ret)
			return ret;
		/* So that the call can be repeated after a signal or a timeout. */
		if (put_user(0, &user->answered))
			return -EFAULT;
	}

	text = kmalloc(VFIO_PCI_HOOKS_VERSION_LEN, GFP_KERNEL_ACCOUNT);
	if (!text)
		return -ENOMEM;
	argsz = next.argsz;
	buffer = u64_to_user_ptr(next.text);
	next.argsz = sizeof(next);
	next.answered = 0;
	next.answer = 0;
	ret = vph_query_await(ch, &next, text);
	if (ret)
		return ret;
	if (copy_to_user(buffer, text, next.length))
		ret = -EFAULT;
	if (!ret)
		ret = vph_copy_out(arg, &next, sizeof(next), argsz);
	if (ret)
		vph_query_give_back(ch, next.id);
	return ret;
}

/* -------------------------------------------------------------------- their end */

void vph_queries_end_locked(struct vph_channel *ch, int error)
{
	struct vph_query *query, *next;

	lockdep_assert_held(&ch->lock);
	list_for_each_entry_safe(query, next, &ch->queries, node)
		vph_query_end(ch, query, error);
}

/* Those that nobody was given yet wait for its replacement. */
void vph_queries_give_up(struct vph_channel *ch, fl_owner_t owner)
{
	struct vph_query *query, *next;

	guard(mutex)(&ch->lock);
	if (ch->query_server == owner)
		ch->query_server = NULL;
	list_for_each_entry_safe(query, next, &ch->queries, node)
		if (query->owner == owner)
			vph_query_end(ch, query, -ENOTCONN);
}

/* No query waits after this, and none ever will. */
void vph_queries_close(struct vph_channel *ch)
{
	guard(mutex)(&ch->lock);
	ch->queries_over = true;
	vph_queries_end_locked(ch, -ENODEV);
}
