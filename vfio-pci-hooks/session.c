// SPDX-License-Identifier: GPL-2.0-only
/*
 * A session: what a worker holds during one open of the device. It begins with
 * WAIT_OPEN and ends for good with the close of the device or of its descriptor,
 * with its channel, or because the worker was late.
 */
#include <linux/anon_inodes.h>
#include <linux/cleanup.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "vfio_pci_hooks_priv.h"
#include "trace.h"

/* --------------------------------------------------------------- begin and end */

static void vph_session_release(struct kref *kref)
{
	struct vph_session *session = container_of(kref, struct vph_session, kref);

	vfree(session->slots);
	vfree(session->shadow);
	vfree(session->stream);
	if (session->hdev)
		vfio_put_device(&session->hdev->core.vdev);
	vph_channel_put(session->channel);
	kfree(session);
}

void vph_session_get(struct vph_session *session)
{
	kref_get(&session->kref);
}

void vph_session_put(struct vph_session *session)
{
	kref_put(&session->kref, vph_session_release);
}

static void *vph_session_pages(size_t size)
{
	return __vmalloc(PAGE_ALIGN(size), GFP_KERNEL_ACCOUNT | __GFP_ZERO);
}

static struct vph_session *vph_session_alloc(struct vph_channel *ch)
{
	struct vph_session *session;

	BUILD_BUG_ON(sizeof(struct vfio_pci_hooks_slot) != SZ_4K);

	session = kzalloc(sizeof(*session), GFP_KERNEL_ACCOUNT);
	if (!session)
		return NULL;
	kref_init(&session->kref);
	init_rwsem(&session->map_lock);
	vph_channel_get(ch);
	session->channel = ch;
	session->over = -ECANCELED;
	session->dead = true;
	session->slots = vph_session_pages(VFIO_PCI_HOOKS_SLOTS * sizeof(*session->slots));
	session->stream = vph_session_pages(VFIO_PCI_HOOKS_STREAM_SIZE);
	if (ch->shadow)
		session->shadow = vph_session_pages(ch->def->shadow_size);
	if (!session->slots || !session->stream || (ch->shadow && !session->shadow)) {
		vph_session_put(session);
		return NULL;
	}
	return session;
}

/* The moment from which the session serves the open, or -EAGAIN where there is none. */
static int vph_session_begin(struct vph_session *session, struct file *filp, u32 *flags,
			     u32 *mig_state)
{
	struct vph_channel *ch = session->channel;
	struct vfio_device *core_vdev;

	guard(mutex)(&ch->lock);
	if (ch->gone)
		return -ENODEV;
	if (!ch->hdev || ch->session)
		return -EAGAIN;

	session->hdev = ch->hdev;
	core_vdev = &session->hdev->core.vdev;
	get_device(&core_vdev->device);
	/* In the device's own mapping, so that vfio-pci zaps the worker's BARs, too. */
	filp->f_mapping = core_vdev->inode->i_mapping;

	if (ch->shadow)
		memcpy(session->shadow, ch->shadow, ch->def->shadow_size);
	*flags = ch->served ? VFIO_PCI_HOOKS_SESSION_AGAIN : 0;
	*mig_state = READ_ONCE(session->hdev->mig.state);

	/* It knows of no page yet, whatever an earlier one was told. */
	vph_touched_all(ch);
	ch->served = true;
	session->since = jiffies;
	session->over = 0;
	session->dead = false;
	WRITE_ONCE(ch->session, session);
	WRITE_ONCE(ch->generation, ch->generation + 1);
	wake_up_all(&ch->vmm_wait);
	return 0;
}

/*
 * Takes the session from the channel: no request reaches it any more, and what it
 * had is given back. The caller then calls vph_session_kill() without the lock.
 */
struct vph_session *vph_session_detach_locked(struct vph_channel *ch, int error)
{
	struct vph_session *session = ch->session;

	lockdep_assert_held(&ch->lock);
	if (!session)
		return NULL;

	trace_revoke(ch->def->pdev, error);
	vph_session_get(session);
	vph_watch_end_locked(session);
	vph_requests_return_locked(ch, session);
	WRITE_ONCE(session->over, error);
	WRITE_ONCE(ch->session, NULL);
	WRITE_ONCE(ch->generation, ch->generation + 1);
	WRITE_ONCE(ch->revoking, ch->revoking + 1);
	ch->lost_at = jiffies;
	vph_channel_wake_worker_locked(ch);
	wake_up_all(&ch->vmm_wait);
	return session;
}

/* When this returns, the session reaches neither device nor memory. */
void vph_session_kill(struct vph_session *session)
{
	struct address_space *mapping = session->hdev->core.vdev.inode->i_mapping;
	struct vph_channel *ch = session->channel;

	down_write(&session->map_lock);
	session->dead = true;
	up_write(&session->map_lock);

	/* The VMM's own mappings of the BARs go as well, and fault back in. */
	unmap_mapping_range(mapping, 0, VFIO_PCI_INDEX_TO_OFFSET(PCI_STD_NUM_BARS), true);
	unmap_mapping_range(mapping, VFIO_PCI_HOOKS_MMAP_SLOTS,
			    VFIO_PCI_HOOKS_MMAP_STREAM - VFIO_PCI_HOOKS_MMAP_SLOTS +
			    VFIO_PCI_HOOKS_STREAM_SIZE, true);
	wait_event(ch->vmm_wait, !atomic_read(&session->iova_users));

	mutex_lock(&ch->lock);
	WRITE_ONCE(ch->revoking, ch->revoking - 1);
	wake_up_all(&ch->vmm_wait);
	mutex_unlock(&ch->lock);
	vph_session_put(session);
}

/* When this returns, no session that was taken from the channel reaches anything. */
void vph_session_wait_revoked(struct vph_channel *ch)
{
	wait_event(ch->vmm_wait, !READ_ONCE(ch->revoking));
}

/*
 * Between enter and leave the session is alive, and with it the open of the
 * device; what ends it waits.
 */
int vph_session_enter(struct vph_session *session)
{
	down_read(&session->map_lock);
	if (!session->dead)
		return 0;
	up_read(&session->map_lock);
	return READ_ONCE(session->over) ?: -ECANCELED;
}

void vph_session_leave(struct vph_session *session)
{
	up_read(&session->map_lock);
}

/* ----------------------------------------------------------------------- events */

void vph_session_event_locked(struct vph_session *session, u32 event, u32 from, u32 to)
{
	struct vph_event *slot;

	lockdep_assert_held(&session->channel->lock);
	if (session->nr_events == VPH_MAX_EVENTS) {
		session->lost_events++;
		if (event != VFIO_PCI_HOOKS_EVENT_RESET)
			return;
		/* A reset is never lost: the shadow is zeroed when it is fetched. */
		session->nr_events--;
	}
	slot = &session->events[(session->first_event + session->nr_events) % VPH_MAX_EVENTS];
	*slot = (struct vph_event) {
		.event = event,
		.from = from,
		.to = to,
		.lost = session->lost_events,
	};
	session->lost_events = 0;
	session->nr_events++;
	if (event == VFIO_PCI_HOOKS_EVENT_RESET)
		WRITE_ONCE(session->reset_untold, true);
	vph_channel_wake_worker_locked(session->channel);
}

/* One stands for all that changed since it was fetched. */
void vph_session_parameters_locked(struct vph_session *session)
{
	unsigned int last = (session->first_event + session->nr_events - 1) % VPH_MAX_EVENTS;

	lockdep_assert_held(&session->channel->lock);
	if (session->nr_events &&
	    session->events[last].event == VFIO_PCI_HOOKS_EVENT_PARAMETERS)
		return;
	/* Nothing may follow that could say so, hence the last one does. */
	if (session->nr_events == VPH_MAX_EVENTS) {
		session->events[last].lost++;
		return;
	}
	vph_session_event_locked(session, VFIO_PCI_HOOKS_EVENT_PARAMETERS, 0, 0);
}

static bool vph_session_reset_waits(struct vph_session *session)
{
	unsigned int i;

	for (i = 0; i < session->nr_events; i++)
		if (session->events[(session->first_event + i) % VPH_MAX_EVENTS].event ==
		    VFIO_PCI_HOOKS_EVENT_RESET)
			return true;
	return false;
}

static bool vph_session_event(struct vph_session *session, struct vfio_pci_hooks_next *next)
{
	struct vph_event *event = &session->events[session->first_event];

	if (!session->nr_events)
		return false;
	session->first_event = (session->first_event + 1) % VPH_MAX_EVENTS;
	session->nr_events--;
	next->what = VFIO_PCI_HOOKS_NEXT_EVENT;
	next->event = event->event;
	next->from = event->from;
	next->to = event->to;
	next->lost = event->lost;
	if (event->event != VFIO_PCI_HOOKS_EVENT_RESET)
		return true;
	/* From here on its memory says what the device is: new. */
	if (session->shadow)
		memset(session->shadow, 0, session->channel->def->shadow_size);
	WRITE_ONCE(session->reset_untold, vph_session_reset_waits(session));
	return true;
}

/* ------------------------------------------------------------------------- next */

/* Whether something was there; with the lock dropped in between, if not. */
static int vph_session_fetch(struct vph_session *session, struct vfio_pci_hooks_next *next,
			     unsigned long *activity)
{
	struct vph_channel *ch = session->channel;
	int ret;

	guard(mutex)(&ch->lock);
	*activity = ch->activity;
	if (session->over)
		return session->over;
	ret = vph_watch_end_locked(session);
	if (ret)
		return ret;
	if (vph_session_event(session, next))
		return 1;
	if (vph_watch_tell_locked(session, &next->slot) ||
	    vph_request_give_locked(session, &next->slot)) {
		next->what = VFIO_PCI_HOOKS_NEXT_REQUEST;
		return 1;
	}
	if (!(next->flags & VFIO_PCI_HOOKS_NEXT_WATCH))
		return 0;
	vph_watch_begin_locked(session);
	next->what = VFIO_PCI_HOOKS_NEXT_WATCHING;
	return 1;
}

static int vph_session_await(struct vph_session *session, struct vfio_pci_hooks_next *next)
{
	struct vph_channel *ch = session->channel;
	long left = next->timeout_ms < 0 ? MAX_SCHEDULE_TIMEOUT :
					   msecs_to_jiffies(next->timeout_ms);
	unsigned long activity;
	int ret;

	for (;;) {
		ret = vph_session_fetch(session, next, &activity);
		if (ret)
			return ret < 0 ? ret : 0;
		if (!left)
			return -ETIME;
		left = wait_event_interruptible_timeout(ch->worker_wait,
							READ_ONCE(ch->activity) != activity, left);
		if (left < 0)
			return left;
	}
}

static long vph_session_next(struct vph_session *session, struct vfio_pci_hooks_next __user *arg)
{
	struct vfio_pci_hooks_next next;
	u32 argsz;
	int ret;

	ret = vph_copy_in(&next, sizeof(next), arg);
	if (ret)
		return ret;
	if ((next.flags & ~VFIO_PCI_HOOKS_NEXT_WATCH) || next.answered < VFIO_PCI_HOOKS_NO_SLOT ||
	    next.answered >= VFIO_PCI_HOOKS_SLOTS)
		return -EINVAL;
	if (next.answered != VFIO_PCI_HOOKS_NO_SLOT) {
		ret = vph_request_answer(session, array_index_nospec(next.answered,
								     VFIO_PCI_HOOKS_SLOTS));
		if (ret)
			return ret;
		/* So that the call can be repeated after a signal or a timeout. */
		if (put_user(VFIO_PCI_HOOKS_NO_SLOT, &arg->answered))
			return -EFAULT;
	}

	argsz = next.argsz;
	next = (struct vfio_pci_hooks_next) {
		.argsz = sizeof(next),
		.flags = next.flags,
		.answered = VFIO_PCI_HOOKS_NO_SLOT,
		.timeout_ms = next.timeout_ms,
		.slot = VFIO_PCI_HOOKS_NO_SLOT,
	};
	ret = vph_session_await(session, &next);
	return ret ?: vph_copy_out(arg, &next, sizeof(next), argsz);
}

/* ---------------------------------------------------------------- other requests */

static long vph_session_rw(struct vph_session *session, void __user *arg,
			   int (*rw)(struct vph_session *session,
				     const struct vfio_pci_hooks_rw *rw))
{
	struct vfio_pci_hooks_rw args;
	int ret;

	ret = vph_copy_in(&args, sizeof(args), arg);
	if (ret)
		return ret;
	if ((args.flags & ~VFIO_PCI_HOOKS_RW_WRITE) || !args.length)
		return -EINVAL;
	return rw(session, &args);
}

/* As with REGION_RW, no way leads around the handlers behind the channel. */
static bool vph_program_is_trapped(struct vph_session *session, const struct vph_program *program)
{
	struct vph_device *hdev = session->hdev;
	unsigned int i;

	for (i = 0; i < program->nr; i++) {
		const struct vfio_pci_hooks_step *step = &program->steps[i];

		if (step->op != VFIO_PCI_HOOKS_STEP_DELAY &&
		    vph_is_trapped_behind(hdev, hdev->def->channel, step->bar, step->offset,
					  vph_step_length(step)))
			return true;
	}
	return false;
}

static long vph_session_start_once(struct vph_session *session, void __user *arg)
{
	struct vfio_pci_hooks_start_once once;
	struct vph_program *program;
	int ret;

	ret = vph_copy_in(&once, sizeof(once), arg);
	if (ret)
		return ret;
	if (once.flags)
		return -EINVAL;
	program = vph_program_copy(session->channel->def->pdev, &once.program, true);
	if (IS_ERR(program))
		return PTR_ERR(program);
	/* One that does nothing is not the same as none. */
	if (!program)
		return -EINVAL;

	ret = vph_session_enter(session);
	if (!ret) {
		ret = vph_program_is_trapped(session, program) ?
		      -EINVAL : vph_migration_start_once(session->hdev, program);
		vph_session_leave(session);
	}
	if (ret)
		kfree(program);
	return ret;
}

static long vph_session_saved(struct vph_session *session, void __user *arg)
{
	struct vfio_pci_hooks_saved saved;
	u32 argsz;
	int ret;

	ret = vph_copy_in(&saved, sizeof(saved), arg);
	if (ret)
		return ret;
	if (saved.flags)
		return -EINVAL;
	ret = vph_session_enter(session);
	if (ret)
		return ret;
	vph_migration_saved(session->hdev, saved.value);
	vph_session_leave(session);

	argsz = saved.argsz;
	saved.argsz = sizeof(saved);
	return vph_copy_out(arg, &saved, sizeof(saved), argsz);
}

static long vph_session_sizes(struct vph_session *session, void __user *arg)
{
	struct vph_channel *ch = session->channel;
	struct vfio_pci_hooks_sizes sizes;
	int ret;

	ret = vph_copy_in(&sizes, sizeof(sizes), arg);
	if (ret)
		return ret;
	if (sizes.flags || sizes.stop_copy_bytes > ch->def->max_state ||
	    sizes.initial_bytes > ch->def->max_state)
		return -EINVAL;

	guard(mutex)(&ch->lock);
	if (session->over)
		return session->over;
	ch->initial_bytes = sizes.initial_bytes;
	ch->stop_copy_bytes = sizes.stop_copy_bytes;
	return 0;
}

/* ------------------------------------------------------------------- descriptor */

static long vph_session_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct vph_session *session = filp->private_data;
	void __user *uarg = (void __user *)arg;

	switch (cmd) {
	case VFIO_PCI_HOOKS_NEXT:
		return vph_session_next(session, uarg);
	case VFIO_PCI_HOOKS_REGION_RW:
		return vph_session_rw(session, uarg, vph_session_region_rw);
	case VFIO_PCI_HOOKS_IOVA_RW:
		return vph_session_rw(session, uarg, vph_session_iova_rw);
	case VFIO_PCI_HOOKS_START_ONCE:
		return vph_session_start_once(session, uarg);
	case VFIO_PCI_HOOKS_GET_SAVED:
		return vph_session_saved(session, uarg);
	case VFIO_PCI_HOOKS_SET_SIZES:
		return vph_session_sizes(session, uarg);
	case VFIO_PCI_HOOKS_TOUCHED:
		return vph_touched_user(session, uarg);
	case VFIO_PCI_HOOKS_GET_PARAMETERS:
		return vph_parameters_get_user(session->channel, uarg);
	case VFIO_PCI_HOOKS_SET_PARAMETERS:
		return vph_parameters_set_user(session, uarg);
	default:
		return -ENOTTY;
	}
}

static __poll_t vph_session_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct vph_session *session = filp->private_data;
	struct vph_channel *ch = session->channel;

	poll_wait(filp, &ch->worker_wait, wait);
	guard(mutex)(&ch->lock);
	if (session->over)
		return EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	/* It waits for this, and no longer looks. */
	vph_watch_end_locked(session);
	if (session->nr_events || vph_request_waiting_locked(session))
		return EPOLLIN | EPOLLRDNORM;
	return 0;
}

static int vph_session_file_release(struct inode *inode, struct file *filp)
{
	struct vph_session *session = filp->private_data;
	struct vph_channel *ch = session->channel;
	struct vph_session *detached = NULL;

	mutex_lock(&ch->lock);
	if (ch->session == session)
		detached = vph_session_detach_locked(ch, -ECANCELED);
	mutex_unlock(&ch->lock);
	if (detached)
		vph_session_kill(detached);
	vph_session_put(session);
	return 0;
}

static const struct file_operations vph_session_fops = {
	.owner		= THIS_MODULE,
	.release	= vph_session_file_release,
	.poll		= vph_session_poll,
	.unlocked_ioctl	= vph_session_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.mmap		= vph_session_mmap,
	.llseek		= noop_llseek,
};

struct file *vph_session_create(struct vph_channel *ch, u32 *flags, u32 *mig_state)
{
	struct vph_session *session;
	struct file *filp;
	int ret;

	session = vph_session_alloc(ch);
	if (!session)
		return ERR_PTR(-ENOMEM);
	filp = anon_inode_getfile("[vfio-pci-hooks-session]", &vph_session_fops, session, O_RDWR);
	if (IS_ERR(filp)) {
		vph_session_put(session);
		return filp;
	}
	ret = vph_session_begin(session, filp, flags, mig_state);
	if (ret) {
		fput(filp);
		return ERR_PTR(ret);
	}
	return filp;
}
