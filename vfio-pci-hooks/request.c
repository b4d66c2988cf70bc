// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests: a thread of the VMM asks and waits, or a data file asks ahead of it; the
 * worker's NEXT takes and answers. What a request is and how far it is stands in kernel
 * memory alone; the slots that the worker maps are a mailbox.
 */
#include <linux/cleanup.h>
#include <linux/jiffies.h>
#include <linux/sched/signal.h>

#include "vfio_pci_hooks_priv.h"
#include "trace.h"

static bool vph_request_is_stream(const struct vph_request *request)
{
	return request->op == VFIO_PCI_HOOKS_REQ_SAVE || request->op == VFIO_PCI_HOOKS_REQ_LOAD;
}

static void vph_request_unlink(struct vph_channel *ch, struct vph_request *request)
{
	unsigned int i;

	lockdep_assert_held(&ch->lock);
	if (request->state == VPH_REQUEST_PENDING)
		list_del(&request->node);
	if (request->state != VPH_REQUEST_GIVEN || !ch->session)
		return;
	for (i = 0; i < VFIO_PCI_HOOKS_SLOTS; i++)
		if (ch->session->slot[i].request == request)
			ch->session->slot[i] = (struct vph_slot) {};
	/* A slot is free again. */
	if (!list_empty(&ch->pending))
		vph_channel_wake_worker_locked(ch);
}

static void vph_request_done(struct vph_channel *ch, struct vph_request *request, int error)
{
	vph_request_unlink(ch, request);
	trace_request(ch->def->pdev, request->op, request->flags, request->seq, request->answer,
		      error);
	request->error = error;
	request->state = VPH_REQUEST_DONE;
	WRITE_ONCE(request->ends, request->ends + 1);
	if (request->done)
		request->done(ch, request);
	if (wq_has_sleeper(&ch->vmm_wait))
		wake_up_all(&ch->vmm_wait);
}

/*
 * Without a session the limit counts from its loss, or from the open: the
 * replacement of a dead worker is waited for, a worker dead for long is not.
 */
static long vph_time_left(struct vph_channel *ch, unsigned long deadline, unsigned long limit)
{
	unsigned long until = deadline;

	if (!ch->session && time_before(ch->lost_at + limit, until))
		until = ch->lost_at + limit;
	return until - jiffies;
}

/* Whether a session has had its chance at a request whose time is over. */
static bool vph_session_is_late(struct vph_session *session, const struct vph_request *request,
				unsigned long limit)
{
	return request->state == VPH_REQUEST_GIVEN ||
	       time_after_eq(jiffies, session->since + limit);
}

/* 0, or why nobody would answer the request, which then is not posted. */
int vph_request_post_locked(struct vph_channel *ch, struct vph_request *request)
{
	int ret;

	lockdep_assert_held(&ch->lock);
	if (!ch->hdev)
		return -ENODEV;
	if (request->session && request->session != ch->session)
		return -EIO;
	/* Whatever ends a file cancels its request under this lock; none comes after. */
	ret = request->owner ? vph_data_file_dead(request->owner) : 0;
	if (ret)
		return ret;
	request->error = 0;
	if (vph_watch_give_locked(ch, request))
		return 0;
	request->state = VPH_REQUEST_PENDING;
	list_add_tail(&request->node, &ch->pending);
	vph_channel_wake_worker_locked(ch);
	return 0;
}

/* Until the request has ended since `ends` was read, whatever became of it: 0. */
static int vph_request_sleep_locked(struct vph_channel *ch, const struct vph_request *request,
				    u32 ends, unsigned long since, unsigned long limit)
{
	unsigned long generation;
	long left, ret;

	lockdep_assert_held(&ch->lock);
	while (request->ends == ends) {
		left = vph_time_left(ch, since + limit, limit);
		if (left <= 0)
			return -ETIME;
		generation = ch->generation;
		mutex_unlock(&ch->lock);
		ret = wait_event_killable_timeout(ch->vmm_wait,
						  READ_ONCE(request->ends) != ends ||
						  READ_ONCE(ch->generation) != generation, left);
		mutex_lock(&ch->lock);
		if (ret < 0 && request->ends == ends)
			return -EINTR;
	}
	return 0;
}

/*
 * Waits until a request that was posted has ended: more often than `ends` times. The
 * limit counts from `since`, when somebody began to wait: a worker that is slow with
 * what nobody waits for is left alone.
 *
 * 0: answered. -ETIME: no worker has answered in time; whichever had it is revoked
 * and can touch nothing any more. -EINTR: the VMM was killed; a data file's request
 * goes on. -EIO: the session that the request is bound to has ended. Else what the
 * request was cancelled with.
 */
int vph_request_await(struct vph_channel *ch, struct vph_request *request, u32 ends,
		      unsigned long since, u32 limit_ms)
{
	unsigned long limit = msecs_to_jiffies(limit_ms);
	struct vph_session *late = NULL;
	int ret;

	mutex_lock(&ch->lock);
	ret = vph_request_sleep_locked(ch, request, ends, since, limit);
	if (!ret) {
		ret = request->error;
	} else if (ret == -ETIME || !request->owner) {
		if (ret == -ETIME && ch->session &&
		    vph_session_is_late(ch->session, request, limit)) {
			late = vph_session_detach_locked(ch, -ECANCELED);
			ch->revoked++;
		}
		/* Detaching has made it pending again, or done, where it is bound. */
		if (request->state != VPH_REQUEST_DONE)
			vph_request_done(ch, request, ret);
	}
	mutex_unlock(&ch->lock);

	if (late) {
		pci_notice_ratelimited(ch->def->pdev, "worker revoked: no answer within %u ms\n",
				       limit_ms);
		vph_session_kill(late);
	}
	/* Whoever revokes: the VMM goes on when that session can touch nothing. */
	if (ret == -ETIME || ret == -EIO)
		vph_session_wait_revoked(ch);
	return ret;
}

/* Posts a request and waits for its answer, as vph_request_await() does. */
int vph_request_wait(struct vph_channel *ch, struct vph_request *request, u32 limit_ms)
{
	struct vph_session *watching = NULL;
	unsigned long since = jiffies;
	u32 ends = request->ends;
	bool ended = false;
	int ret;

	mutex_lock(&ch->lock);
	ret = vph_request_post_locked(ch, request);
	if (!ret && request->state == VPH_REQUEST_GIVEN) {
		watching = ch->session;
		vph_session_get(watching);
	}
	mutex_unlock(&ch->lock);
	if (ret)
		return ret;

	if (watching) {
		ended = vph_watch_await(watching, request);
		vph_session_put(watching);
	}
	return ended ? request->error : vph_request_await(ch, request, ends, since, limit_ms);
}

/*
 * Waits for a session to bind a stream to, and references it. ended: the stream
 * was given up meanwhile. may_wait: else -EAGAIN.
 */
struct vph_session *vph_session_wait(struct vph_channel *ch, unsigned long epoch,
				     const int *ended, bool may_wait)
{
	unsigned long limit = msecs_to_jiffies(ch->def->state_limit_ms);
	unsigned long deadline = jiffies + limit;
	struct vph_session *session;
	unsigned long generation;
	long left, ret;

	guard(mutex)(&ch->lock);
	for (;;) {
		if (!ch->hdev)
			return ERR_PTR(-ENODEV);
		if (ch->epoch != epoch || READ_ONCE(*ended))
			return ERR_PTR(-ECANCELED);
		session = ch->session;
		if (session) {
			vph_session_get(session);
			return session;
		}
		left = vph_time_left(ch, deadline, limit);
		if (left <= 0)
			return ERR_PTR(-ETIMEDOUT);
		if (!may_wait)
			return ERR_PTR(-EAGAIN);
		generation = ch->generation;
		mutex_unlock(&ch->lock);
		ret = wait_event_killable_timeout(ch->vmm_wait,
						  READ_ONCE(ch->generation) != generation ||
						  READ_ONCE(ch->epoch) != epoch ||
						  READ_ONCE(*ended), left);
		mutex_lock(&ch->lock);
		if (ret < 0)
			return ERR_PTR(-EINTR);
	}
}

static void vph_cancel(struct vph_channel *ch, bool (*match)(const struct vph_request *request,
							     const void *owner),
		       const void *owner, int error)
{
	struct vph_request *request, *next;
	unsigned int i;

	lockdep_assert_held(&ch->lock);
	list_for_each_entry_safe(request, next, &ch->pending, node)
		if (match(request, owner))
			vph_request_done(ch, request, error);
	for (i = 0; ch->session && i < VFIO_PCI_HOOKS_SLOTS; i++) {
		request = ch->session->slot[i].request;
		if (request && match(request, owner))
			vph_request_done(ch, request, error);
	}
	/* For those that wait for a session. */
	wake_up_all(&ch->vmm_wait);
}

static bool vph_request_of(const struct vph_request *request, const void *owner)
{
	return !owner || request->owner == owner;
}

/* Ends the requests of one owner, or all. */
void vph_requests_cancel_locked(struct vph_channel *ch, const void *owner, int error)
{
	vph_cancel(ch, vph_request_of, owner, error);
}

void vph_requests_cancel(struct vph_channel *ch, const void *owner, int error)
{
	guard(mutex)(&ch->lock);
	vph_requests_cancel_locked(ch, owner, error);
}

static bool vph_request_of_stream(const struct vph_request *request, const void *owner)
{
	return vph_request_is_stream(request);
}

void vph_requests_cancel_stream_locked(struct vph_channel *ch, int error)
{
	vph_cancel(ch, vph_request_of_stream, NULL, error);
}

/*
 * The session is about to end: what it has not answered goes back to the front of
 * the queue, in the order it came. Its replacement starts from the committed shadow,
 * as this one did, so that the access has its effect there exactly once.
 */
void vph_requests_return_locked(struct vph_channel *ch, struct vph_session *session)
{
	struct vph_request *request, *next;
	unsigned int i;
	LIST_HEAD(back);

	lockdep_assert_held(&ch->lock);
	for (i = 0; i < VFIO_PCI_HOOKS_SLOTS; i++) {
		struct list_head *place;

		request = session->slot[i].request;
		if (!request)
			continue;
		session->slot[i] = (struct vph_slot) {};
		list_for_each(place, &back)
			if ((s32)(list_entry(place, struct vph_request, node)->seq -
				  request->seq) > 0)
				break;
		list_add_tail(&request->node, place);
		request->state = VPH_REQUEST_PENDING;
	}
	list_splice(&back, &ch->pending);

	/* Streams do not change their session. */
	list_for_each_entry_safe(request, next, &ch->pending, node)
		if (request->session == session)
			vph_request_done(ch, request, -EIO);
}

static struct vph_request *vph_request_next(struct vph_session *session, unsigned int *slot)
{
	struct vph_channel *ch = session->channel;
	struct vph_request *request;
	unsigned int i;

	lockdep_assert_held(&ch->lock);
	for (i = 0; i < VFIO_PCI_HOOKS_SLOTS && session->slot[i].request; i++)
		;
	if (i == VFIO_PCI_HOOKS_SLOTS)
		return NULL;
	*slot = i;
	list_for_each_entry(request, &ch->pending, node)
		if (!request->session || request->session == session)
			return request;
	return NULL;
}

bool vph_request_waiting_locked(struct vph_session *session)
{
	unsigned int slot;

	return session->slot[0].untold || vph_request_next(session, &slot);
}

/* Into a slot that is free; the request is in no list. */
void vph_request_put_locked(struct vph_session *session, unsigned int slot,
			    struct vph_request *request)
{
	struct vfio_pci_hooks_slot *mailbox = &session->slots[slot];
	struct vph_channel *ch = session->channel;

	lockdep_assert_held(&ch->lock);
	request->state = VPH_REQUEST_GIVEN;
	/* Events come first: the worker knows of every reset up to here. */
	request->epoch = ch->epoch;
	request->seq = ++ch->seq;
	session->slot[slot].request = request;
	session->slot[slot].seq = request->seq;

	mailbox->seq = request->seq;
	mailbox->op = request->op;
	mailbox->flags = request->flags;
	mailbox->index = request->index;
	mailbox->length = request->length;
	mailbox->offset = request->offset;
	mailbox->answer = request->flags & VFIO_PCI_HOOKS_REQ_AFTER ? request->answer : 0;
	/* A worker that knows of no promise must not repeat what it said about a SAVE. */
	mailbox->dirty_bytes = 0;
	if (request->data && request->op != VFIO_PCI_HOOKS_REQ_READ)
		memcpy(mailbox->data, request->data, request->length);
}

/* Puts the first request that waits into a free slot. */
bool vph_request_give_locked(struct vph_session *session, int *slotp)
{
	struct vph_request *request;
	unsigned int slot;

	request = vph_request_next(session, &slot);
	if (!request)
		return false;
	list_del(&request->node);
	vph_request_put_locked(session, slot, request);
	*slotp = slot;
	return true;
}

/* What the worker has left in a slot, each field read once. */
struct vph_answer {
	u32 seq;
	s32 answer;
	u32 length;
	u32 flags;
	u64 initial_bytes;
	u64 dirty_bytes;
};

static bool vph_answer_is_valid(const struct vph_request *request, const struct vph_answer *answer)
{
	if (answer->answer < 0)
		return answer->answer >= -VPH_MAX_ANSWER_ERRNO;
	if (answer->answer == VFIO_PCI_HOOKS_PASS)
		return !vph_request_is_stream(request);
	if (answer->answer == VFIO_PCI_HOOKS_RUN_REST)
		return (request->op == VFIO_PCI_HOOKS_REQ_IOCTL ||
			request->op == VFIO_PCI_HOOKS_REQ_FEATURE) &&
		       !(request->flags & VFIO_PCI_HOOKS_REQ_AFTER);
	if (answer->answer != VFIO_PCI_HOOKS_HANDLED)
		return false;

	switch (request->op) {
	case VFIO_PCI_HOOKS_REQ_READ:
		return answer->length == request->length;
	case VFIO_PCI_HOOKS_REQ_WRITE:
		return true;
	case VFIO_PCI_HOOKS_REQ_IOCTL:
	case VFIO_PCI_HOOKS_REQ_FEATURE:
		return answer->length <= request->capacity;
	case VFIO_PCI_HOOKS_REQ_SAVE:
		/* Nothing, and yet not the end, would have the VMM ask for ever. */
		if (!answer->length && !(answer->flags & VFIO_PCI_HOOKS_ANSWER_END) &&
		    request->index == VFIO_PCI_HOOKS_PHASE_STOP_COPY)
			return false;
		return answer->length <= request->length &&
		       !(answer->flags & ~VFIO_PCI_HOOKS_ANSWER_END);
	case VFIO_PCI_HOOKS_REQ_LOAD:
		return !(answer->flags & ~VFIO_PCI_HOOKS_ANSWER_END);
	}
	return false;
}

/* Before the VMM hears of the answer, what it changed in the shadow is safe here. */
static void vph_shadow_commit(struct vph_session *session, const struct vph_request *request)
{
	struct vph_channel *ch = session->channel;

	if (request->op == VFIO_PCI_HOOKS_REQ_SAVE ||
	    (request->op == VFIO_PCI_HOOKS_REQ_LOAD &&
	     !(request->answer_flags & VFIO_PCI_HOOKS_ANSWER_END)))
		return;
	if (request->epoch == ch->epoch) {
		if (ch->shadow)
			memcpy(ch->shadow, session->shadow, ch->def->shadow_size);
		return;
	}
	/* Given before a reset, answered after: its effect on the device may be after. */
	ch->incomplete = true;
}

/* slot: below VFIO_PCI_HOOKS_SLOTS, also where the processor speculates. */
int vph_request_answer_locked(struct vph_session *session, unsigned int slot)
{
	const struct vfio_pci_hooks_slot *mailbox = &session->slots[slot];
	struct vph_channel *ch = session->channel;
	struct vph_answer answer = {
		.seq = READ_ONCE(mailbox->answer_seq),
		.answer = READ_ONCE(mailbox->answer),
		.length = READ_ONCE(mailbox->answer_length),
		.flags = READ_ONCE(mailbox->answer_flags),
		.initial_bytes = READ_ONCE(mailbox->initial_bytes),
		.dirty_bytes = READ_ONCE(mailbox->dirty_bytes),
	};
	struct vph_request *request;

	lockdep_assert_held(&ch->lock);
	if (session->over)
		return session->over;
	request = session->slot[slot].request;
	if (!request || session->slot[slot].seq != answer.seq ||
	    !vph_answer_is_valid(request, &answer))
		return -EINVAL;

	request->answer = answer.answer;
	request->answer_length = answer.length;
	request->answer_flags = answer.flags;
	request->initial_bytes = answer.initial_bytes;
	request->dirty_bytes = answer.dirty_bytes;
	if (!answer.answer && request->data)
		memcpy(request->data, mailbox->data, min(answer.length, request->capacity));
	if (request->op == VFIO_PCI_HOOKS_REQ_READ || request->op == VFIO_PCI_HOOKS_REQ_WRITE)
		ch->accesses++;
	vph_shadow_commit(session, request);
	vph_request_done(ch, request, 0);
	return 0;
}

int vph_request_answer(struct vph_session *session, unsigned int slot)
{
	guard(mutex)(&session->channel->lock);
	return vph_request_answer_locked(session, slot);
}
