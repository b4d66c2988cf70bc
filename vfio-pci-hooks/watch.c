// SPDX-License-Identifier: GPL-2.0-only
/*
 * A worker that stays awake: requests and answers go by slot 0 and its word `watch`,
 * and neither it nor the thread of the VMM makes a system call for them.
 *
 * What is so stands in kernel memory: `watched` of the session and `untold` of the slot,
 * under vph_channel.lock. The word, which the worker may write as it likes, only says
 * when to look: it is read to leave a bounded loop, and to take an answer that is then
 * checked as every other.
 */
#include <linux/sched/clock.h>
#include <linux/sched/stat.h>

#include "vfio_pci_hooks_priv.h"

/* So long a thread of the VMM stays awake for an answer: about as long as sleeping takes. */
#define VPH_AWAKE_NS	(50 * NSEC_PER_USEC)
/* The clock, and whether others want this CPU, cost more than a look at the word. */
#define VPH_LOOKS_PER_TIME	16

static u32 *vph_watch_word(struct vph_session *session)
{
	return &session->slots[0].watch;
}

static bool vph_watch_is_busy(u32 word)
{
	return word == VFIO_PCI_HOOKS_WATCH_REQUEST || word == VFIO_PCI_HOOKS_WATCH_TAKEN;
}

/* There is nothing that NEXT could tell. */
void vph_watch_begin_locked(struct vph_session *session)
{
	lockdep_assert_held(&session->channel->lock);
	session->watched = true;
	smp_store_release(vph_watch_word(session), VFIO_PCI_HOOKS_WATCH_IDLE);
}

/* An answer that stands in slot 0; where it is wrong, the request is told again. */
static int vph_watch_answer_locked(struct vph_session *session)
{
	struct vph_slot *slot = &session->slot[0];
	int ret;

	slot->untold = false;
	ret = vph_request_answer_locked(session, 0);
	if (ret)
		slot->untold = slot->request;
	return ret;
}

/*
 * The worker has to call NEXT. An answer that stands there is taken now, a request that
 * the worker has taken is answered by NEXT, and one that it has not is told by it.
 */
int vph_watch_end_locked(struct vph_session *session)
{
	struct vph_slot *slot = &session->slot[0];
	u32 seen;

	lockdep_assert_held(&session->channel->lock);
	if (!session->watched && !slot->untold)
		return 0;
	session->watched = false;
	seen = xchg(vph_watch_word(session), VFIO_PCI_HOOKS_WATCH_CALL);
	if (!slot->untold)
		return 0;
	if (seen == VFIO_PCI_HOOKS_WATCH_ANSWERED)
		return vph_watch_answer_locked(session);
	if (seen == VFIO_PCI_HOOKS_WATCH_TAKEN)
		slot->untold = false;
	return 0;
}

/* Whether the request went to a worker that watches. */
bool vph_watch_give_locked(struct vph_channel *ch, struct vph_request *request)
{
	struct vph_session *session = ch->session;

	lockdep_assert_held(&ch->lock);
	/* A file's requests are not waited for by a thread that could take the answer. */
	if (!session || !session->watched || session->slot[0].request || request->owner)
		return false;
	vph_request_put_locked(session, 0, request);
	session->slot[0].untold = true;
	smp_store_release(vph_watch_word(session), VFIO_PCI_HOOKS_WATCH_REQUEST);
	return true;
}

/* A request that the worker has not taken: NEXT tells it, as if it came only now. */
bool vph_watch_tell_locked(struct vph_session *session, int *slot)
{
	lockdep_assert_held(&session->channel->lock);
	if (!session->slot[0].untold)
		return false;
	session->slot[0].untold = false;
	vph_request_put_locked(session, 0, session->slot[0].request);
	*slot = 0;
	return true;
}

/*
 * Awake until the answer is there, or there is something else to do for this CPU, or
 * time is over. Whether the request has ended; if not, it goes on as any other.
 */
bool vph_watch_await(struct vph_session *session, const struct vph_request *request)
{
	struct vph_slot *slot = &session->slot[0];
	u32 *word = vph_watch_word(session);
	u64 since = local_clock();
	unsigned int looks;

	for (looks = 1; vph_watch_is_busy(READ_ONCE(*word)); looks++) {
		cpu_relax();
		if (looks % VPH_LOOKS_PER_TIME)
			continue;
		if (need_resched() || !single_task_running() ||
		    local_clock() - since > VPH_AWAKE_NS)
			break;
	}

	guard(mutex)(&session->channel->lock);
	if (slot->request == request && slot->untold) {
		/* The next one may come by the word, too, unless NEXT has something to tell. */
		if (smp_load_acquire(word) == VFIO_PCI_HOOKS_WATCH_ANSWERED &&
		    !vph_watch_answer_locked(session) && session->watched)
			vph_watch_begin_locked(session);
		else
			vph_watch_end_locked(session);
	}
	return request->state == VPH_REQUEST_DONE;
}
