// SPDX-License-Identifier: GPL-2.0-only
/*
 * The hook channel: the handler of the chain that a worker in userspace is behind.
 * Here is its place in the chain, the descriptor that ATTACH returns, and what
 * happens to it when the device is opened, closed and reset.
 */
#include <linux/anon_inodes.h>
#include <linux/cleanup.h>
#include <linux/file.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vfio_pci_hooks_priv.h"

/* ------------------------------------------------------- handler of the chain */

/* An operation that no worker has answered: what the definition says about it. */
static int vph_missed(struct vph_channel *ch, int error)
{
	if (error != -ETIME)
		return error;

	guard(mutex)(&ch->lock);
	ch->missed++;
	if (ch->def->flags & VFIO_PCI_HOOKS_DEFINE_FAIL)
		return -EIO;
	if (!ch->incomplete)
		pci_notice_ratelimited(ch->def->pdev,
				       "an access passed with no worker: no migration until the guest resets the device\n");
	ch->incomplete = true;
	/* For those that poll a data file, which has an error now. */
	wake_up_all(&ch->vmm_wait);
	return VFIO_PCI_HOOKS_PASS;
}

static int vph_channel_access(struct vfio_pci_hooks_link *link,
			      struct vfio_pci_hooks_access *access)
{
	struct vph_channel *ch = link->hdev->channel;
	struct vph_request request = {
		.op = access->write ? VFIO_PCI_HOOKS_REQ_WRITE : VFIO_PCI_HOOKS_REQ_READ,
		.index = access->region,
		.offset = access->offset,
		.length = access->length,
		.data = access->data,
		.capacity = access->write ? 0 : access->length,
	};
	int ret;

	ret = vph_request_wait(ch, &request, ch->def->access_limit_ms);
	return ret ? vph_missed(ch, ret) : request.answer;
}

/* The worker has let the rest run, and now sees what came of it. */
static int vph_channel_after(struct vfio_pci_hooks_link *link, struct vph_call *call,
			     struct vph_request *request)
{
	struct vph_channel *ch = link->hdev->channel;
	int result, ret;

	result = vph_call_rest(call, link->index + 1);
	/* Nothing of ours to copy out unless the worker says so: it is there already. */
	call->call.length = 0;
	if (vph_call_refetch(call))
		return result;

	request->flags = VFIO_PCI_HOOKS_REQ_AFTER;
	request->answer = result;
	ret = vph_request_wait(ch, request, ch->def->access_limit_ms);
	if (ret) {
		ret = vph_missed(ch, ret);
		return ret > 0 ? result : ret;
	}
	if (request->answer > 0)
		return result;
	call->call.length = request->answer_length;
	return request->answer;
}

static int vph_channel_call(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_call *public)
{
	struct vph_call *call = container_of(public, struct vph_call, call);
	struct vph_channel *ch = link->hdev->channel;
	struct vph_request request = {
		.op = call->feature ? VFIO_PCI_HOOKS_REQ_FEATURE : VFIO_PCI_HOOKS_REQ_IOCTL,
		.index = public->number,
		.length = public->length,
		.data = public->data,
		.capacity = call->size,
	};
	int ret;

	ret = vph_request_wait(ch, &request, ch->def->access_limit_ms);
	if (ret)
		return vph_missed(ch, ret);
	if (request.answer == VFIO_PCI_HOOKS_RUN_REST)
		return vph_channel_after(link, call, &request);
	public->length = request.answer_length;
	return request.answer;
}

const struct vph_handler vph_channel_handler = {
	.ops = {
		.size = sizeof(struct vfio_pci_hooks_ops),
		.known = VFIO_PCI_HOOKS_OPS_KNOWN,
		.name = VFIO_PCI_HOOKS_CHANNEL_NAME,
		.read = vph_channel_access,
		.write = vph_channel_access,
		.ioctl = vph_channel_call,
		.device_feature = vph_channel_call,
	},
};

/* --------------------------------------------------- what happens to the device */

static void vph_channel_release(struct kref *kref)
{
	struct vph_channel *ch = container_of(kref, struct vph_channel, kref);

	mutex_destroy(&ch->lock);
	kfree(ch->values);
	kvfree(ch->shadow);
	vph_definition_put(ch->def);
	kfree(ch);
}

void vph_channel_get(struct vph_channel *ch)
{
	kref_get(&ch->kref);
}

void vph_channel_put(struct vph_channel *ch)
{
	kref_put(&ch->kref, vph_channel_release);
}

struct vph_channel *vph_channel_create(struct vph_definition *def)
{
	struct vph_channel *ch;

	ch = kzalloc(sizeof(*ch), GFP_KERNEL_ACCOUNT);
	if (!ch)
		return NULL;
	if (def->shadow_size) {
		ch->shadow = kvzalloc(def->shadow_size, GFP_KERNEL_ACCOUNT);
		if (!ch->shadow) {
			kfree(ch);
			return NULL;
		}
	}
	kref_init(&ch->kref);
	kref_get(&def->kref);
	ch->def = def;
	init_waitqueue_head(&ch->vmm_wait);
	init_waitqueue_head(&ch->worker_wait);
	init_waitqueue_head(&ch->query_wait);
	mutex_init(&ch->lock);
	vph_touched_init(ch);
	INIT_LIST_HEAD(&ch->pending);
	INIT_LIST_HEAD(&ch->queries);
	if (vph_parameters_init(ch)) {
		vph_channel_put(ch);
		return NULL;
	}
	return ch;
}

/* Something came up for the worker, or its session ended. */
void vph_channel_wake_worker_locked(struct vph_channel *ch)
{
	lockdep_assert_held(&ch->lock);
	WRITE_ONCE(ch->activity, ch->activity + 1);
	if (ch->session)
		vph_watch_end_locked(ch->session);
	wake_up_interruptible(&ch->worker_wait);
}

/* A new open of the device: nothing of an earlier one is left. */
void vph_channel_open(struct vph_channel *ch, struct vph_device *hdev)
{
	guard(mutex)(&ch->lock);
	ch->epoch++;
	ch->lost_at = jiffies;
	ch->served = false;
	ch->incomplete = false;
	ch->initial_bytes = 0;
	ch->stop_copy_bytes = 0;
	if (ch->shadow)
		memset(ch->shadow, 0, ch->def->shadow_size);
	WRITE_ONCE(ch->hdev, hdev);
	vph_channel_wake_worker_locked(ch);
}

/* When this returns, no worker touches the device, and nobody waits for one. */
void vph_channel_close(struct vph_channel *ch)
{
	struct vph_session *session;

	mutex_lock(&ch->lock);
	WRITE_ONCE(ch->hdev, NULL);
	ch->epoch++;
	session = vph_session_detach_locked(ch, -ESHUTDOWN);
	vph_requests_cancel_locked(ch, NULL, -ENODEV);
	mutex_unlock(&ch->lock);

	if (session)
		vph_session_kill(session);
	/* Another thread may be about to end a session that it found late. */
	vph_session_wait_revoked(ch);
	vph_touched_end(ch);
}

void vph_channel_gone(struct vph_channel *ch)
{
	guard(mutex)(&ch->lock);
	WRITE_ONCE(ch->gone, true);
	vph_channel_wake_worker_locked(ch);
	vph_query_wake_locked(ch);
}

/*
 * The device was reset, and with it everything the worker knew about it. State
 * requests end; an access that waits goes on, and its answer does not count as seen
 * where the worker was given it before the reset.
 */
void vph_channel_reset(struct vph_channel *ch)
{
	guard(mutex)(&ch->lock);
	/* An answer that stands there was before. */
	if (ch->session)
		vph_watch_end_locked(ch->session);
	ch->epoch++;
	ch->incomplete = false;
	vph_touched_all(ch);
	if (ch->shadow)
		memset(ch->shadow, 0, ch->def->shadow_size);
	vph_requests_cancel_stream_locked(ch, -ECANCELED);
	if (ch->session)
		vph_session_event_locked(ch->session, VFIO_PCI_HOOKS_EVENT_RESET, 0, 0);
}

void vph_channel_state(struct vph_channel *ch, u32 from, u32 to)
{
	guard(mutex)(&ch->lock);
	if (ch->session)
		vph_session_event_locked(ch->session, VFIO_PCI_HOOKS_EVENT_STATE, from, to);
}

bool vph_channel_incomplete(struct vph_channel *ch)
{
	guard(mutex)(&ch->lock);
	return ch->incomplete;
}

/* ------------------------------------------------------------- its descriptor */

static bool vph_channel_wants_session(struct vph_channel *ch)
{
	return READ_ONCE(ch->gone) || (READ_ONCE(ch->hdev) && !READ_ONCE(ch->session));
}

static long vph_wait_open(struct vph_channel *ch, struct vfio_pci_hooks_wait_open __user *arg)
{
	struct vfio_pci_hooks_wait_open wait;
	struct file *filep;
	u32 argsz, flags;
	int ret, fd;

	ret = vph_copy_in(&wait, sizeof(wait), arg);
	if (ret)
		return ret;
	if (wait.flags & ~VFIO_PCI_HOOKS_WAIT_NONBLOCK)
		return -EINVAL;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;

	do {
		ret = -EAGAIN;
		if (!vph_channel_wants_session(ch) && (wait.flags & VFIO_PCI_HOOKS_WAIT_NONBLOCK))
			goto out_fd;
		ret = wait_event_interruptible(ch->worker_wait, vph_channel_wants_session(ch));
		if (ret)
			goto out_fd;
		filep = vph_session_create(ch, &flags, &wait.mig_state);
		ret = PTR_ERR_OR_ZERO(filep);
	} while (ret == -EAGAIN);
	if (ret)
		goto out_fd;

	argsz = wait.argsz;
	wait.argsz = sizeof(wait);
	wait.flags = flags;
	wait.fd = fd;
	ret = vph_copy_out(arg, &wait, sizeof(wait), argsz);
	if (ret) {
		fput(filep);
		goto out_fd;
	}
	fd_install(fd, filep);
	return 0;

out_fd:
	put_unused_fd(fd);
	return ret;
}

static long vph_channel_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct vph_channel *ch = filp->private_data;

	switch (cmd) {
	case VFIO_PCI_HOOKS_WAIT_OPEN:
		return vph_wait_open(ch, (void __user *)arg);
	case VFIO_PCI_HOOKS_NEXT_QUERY:
		return vph_query_next(ch, (void __user *)arg);
	case VFIO_PCI_HOOKS_GET_PARAMETERS:
		return vph_parameters_get_user(ch, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}

static __poll_t vph_channel_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct vph_channel *ch = filp->private_data;

	poll_wait(filp, &ch->worker_wait, wait);
	if (READ_ONCE(ch->gone))
		return EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	return vph_channel_wants_session(ch) ? EPOLLIN | EPOLLRDNORM : 0;
}

/* Somebody has closed a descriptor or ended; another process may hold one still. */
static int vph_channel_flush(struct file *filp, fl_owner_t id)
{
	vph_queries_give_up(filp->private_data, id);
	return 0;
}

static int vph_channel_detach(struct inode *inode, struct file *filp)
{
	struct vph_channel *ch = filp->private_data;
	struct vph_session *session;

	mutex_lock(&ch->lock);
	session = vph_session_detach_locked(ch, -ECANCELED);
	mutex_unlock(&ch->lock);
	if (session)
		vph_session_kill(session);

	/* Only now may another one attach: two workers never have the device at once. */
	mutex_lock(&ch->lock);
	ch->attached = false;
	ch->query_server = NULL;
	vph_queries_end_locked(ch, -ENOTCONN);
	mutex_unlock(&ch->lock);
	vph_channel_put(ch);
	return 0;
}

static const struct file_operations vph_channel_fops = {
	.owner		= THIS_MODULE,
	.flush		= vph_channel_flush,
	.release	= vph_channel_detach,
	.poll		= vph_channel_poll,
	.unlocked_ioctl	= vph_channel_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

int vph_channel_attach(struct vph_channel *ch, int *fdp, struct file **filep)
{
	struct file *filp;
	int fd;

	guard(mutex)(&ch->lock);
	if (ch->gone)
		return -ENXIO;
	if (ch->attached)
		return -EBUSY;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	filp = anon_inode_getfile("[vfio-pci-hooks-channel]", &vph_channel_fops, ch, O_RDWR);
	if (IS_ERR(filp)) {
		put_unused_fd(fd);
		return PTR_ERR(filp);
	}
	vph_channel_get(ch);
	ch->attached = true;
	*fdp = fd;
	*filep = filp;
	return 0;
}
