// SPDX-License-Identifier: GPL-2.0-only
/*
 * Data files: the device state as the VMM reads or writes it. The worker fills or
 * drains the stream buffer of its session, and the VMM's thread copies to or from
 * it: one copy.
 *
 * A file knows the channel, never the device, and may outlive both open and bind.
 * What ends it (an arc, a reset, a close) sets a flag and cancels its request, and
 * so does not wait for whoever sleeps in read() or write().
 */
#include <linux/anon_inodes.h>
#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "vfio_pci_hooks_priv.h"
#include "trace.h"

struct vph_data_file {
	struct kref kref;		/* the descriptor, and the device as long as it goes on */
	struct vph_channel *channel;	/* referenced */
	unsigned long epoch;
	int ended;			/* errno; written once, without the lock */
	bool final;			/* STOP_COPY has begun; written once, without the lock */
	bool info_v2;			/* the VMM understands VFIO_PRECOPY_INFO_REINIT */

	struct mutex lock;		/* all below */
	struct vph_session *session;	/* the one that began the stream; referenced */
	int error;			/* sticky */
	bool begun;
	bool loaded;			/* may be read without the lock */
	u32 phase;			/* of the last request */
	bool phase_end;
	u64 total;

	spinlock_t counts_lock;		/* for those that do not have the lock */
	u32 filled;
	u32 drained;
	bool fill_is_initial;		/* what is in the buffer counts as initial bytes */
	u64 initial_bytes;
	u64 dirty_bytes;
	bool reinit;			/* initial_bytes has grown, and nobody has been told */
};

static void vph_data_file_free(struct kref *kref)
{
	struct vph_data_file *file = container_of(kref, struct vph_data_file, kref);

	if (file->session)
		vph_session_put(file->session);
	vph_channel_put(file->channel);
	mutex_destroy(&file->lock);
	kfree(file);
}

int vph_data_file_dead(const struct vph_data_file *file)
{
	const struct vph_channel *ch = file->channel;

	if (!READ_ONCE(ch->hdev))
		return -ENODEV;
	if (READ_ONCE(file->ended))
		return READ_ONCE(file->ended);
	return READ_ONCE(ch->epoch) == file->epoch ? 0 : -ECANCELED;
}

/* An errno that stays, unless the file was ended, which says more. */
static int vph_data_file_fail(struct vph_data_file *file, int error)
{
	int dead = vph_data_file_dead(file);

	if (dead)
		return dead;
	if (error != -EINTR && !file->error) {
		pci_notice_ratelimited(file->channel->def->pdev, "device state: %d after %llu bytes\n",
				       error, file->total);
		file->error = error;
	}
	return error;
}

/* The session that the stream began with; a stream does not go on with another. */
static int vph_data_file_bind(struct vph_data_file *file)
{
	struct vph_session *session;

	if (!file->session) {
		session = vph_session_wait(file->channel, file->epoch, &file->ended);
		if (IS_ERR(session))
			return PTR_ERR(session);
		file->session = session;
	}
	return READ_ONCE(file->session->over) ? -EIO : 0;
}

static int vph_data_file_ask(struct vph_data_file *file, struct vph_request *request)
{
	int ret;

	request->session = file->session;
	request->owner = file;
	if (!file->begun)
		request->flags |= VFIO_PCI_HOOKS_REQ_BEGIN;
	ret = vph_request_wait(file->channel, request, file->channel->def->state_limit_ms);
	if (ret)
		return ret == -ETIME ? -ETIMEDOUT : ret;
	file->begun = true;
	return min(request->answer, 0);
}

/* ------------------------------------------------------------------------ saving */

/* Initial bytes only ever become fewer, unless the VMM can be told of a new beginning. */
static void vph_save_count(struct vph_data_file *file, u64 initial, u64 dirty)
{
	lockdep_assert_held(&file->counts_lock);
	if (initial > file->initial_bytes && !file->info_v2) {
		dirty += initial - file->initial_bytes;
		initial = file->initial_bytes;
	}
	if (initial > file->initial_bytes)
		file->reinit = true;
	file->initial_bytes = initial;
	file->dirty_bytes = dirty;
}

static int vph_save_fill(struct vph_data_file *file)
{
	struct vph_request request = {
		.op = VFIO_PCI_HOOKS_REQ_SAVE,
		.index = file->phase,
	};
	int ret;

	ret = vph_data_file_bind(file);
	if (!ret)
		ret = vph_data_file_ask(file, &request);
	if (ret)
		return ret;

	file->phase_end = request.answer_flags & VFIO_PCI_HOOKS_ANSWER_END;
	file->total += request.answer_length;
	if (file->total > file->channel->def->max_state)
		return -EFBIG;

	spin_lock(&file->counts_lock);
	file->fill_is_initial = file->initial_bytes;
	file->filled = request.answer_length;
	file->drained = 0;
	vph_save_count(file, request.initial_bytes, request.dirty_bytes);
	spin_unlock(&file->counts_lock);
	return 0;
}

static ssize_t vph_save_drain(struct vph_data_file *file, char __user *buf, size_t len)
{
	u32 length = min_t(size_t, len, file->filled - file->drained);

	if (READ_ONCE(file->session->over))
		return vph_data_file_fail(file, -EIO);
	if (copy_to_user(buf, file->session->stream + file->drained, length))
		return -EFAULT;
	/* Only what a worker with every right had put there counts. */
	if (vph_data_file_dead(file) || READ_ONCE(file->session->over))
		return vph_data_file_fail(file, -EIO);

	spin_lock(&file->counts_lock);
	file->drained += length;
	spin_unlock(&file->counts_lock);
	return length;
}

static ssize_t vph_save_read(struct vph_data_file *file, char __user *buf, size_t len)
{
	int ret;

	while (len) {
		ret = vph_data_file_dead(file) ?: file->error;
		if (ret)
			return ret;
		if (vph_channel_incomplete(file->channel))
			return vph_data_file_fail(file, -ENODATA);
		if (file->filled > file->drained)
			return vph_save_drain(file, buf, len);

		if (READ_ONCE(file->final) && file->phase != VFIO_PCI_HOOKS_PHASE_STOP_COPY) {
			file->phase = VFIO_PCI_HOOKS_PHASE_STOP_COPY;
			file->phase_end = false;
		}
		if (file->phase_end)
			return file->phase == VFIO_PCI_HOOKS_PHASE_STOP_COPY ? 0 : -ENOMSG;

		ret = vph_save_fill(file);
		if (ret)
			return vph_data_file_fail(file, ret);
		/* Nothing now; but whoever is in STOP_COPY already must not hear of it. */
		if (!file->filled && !file->phase_end && !READ_ONCE(file->final))
			return -ENOMSG;
	}
	return 0;
}

static ssize_t vph_data_file_read(struct file *filp, char __user *buf, size_t len, loff_t *pos)
{
	struct vph_data_file *file = filp->private_data;
	ktime_t begin = ktime_get();
	ssize_t ret;

	if (pos)
		return -ESPIPE;
	ret = mutex_lock_interruptible(&file->lock);
	if (ret)
		return ret;
	ret = vph_save_read(file, buf, len);
	mutex_unlock(&file->lock);
	trace_data(file->channel->def->pdev, false, ret, ktime_us_delta(ktime_get(), begin));
	return ret;
}

/* Answered from what the kernel has: a worker that is busy or gone delays nobody. */
static long vph_precopy_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct vph_data_file *file = filp->private_data;
	unsigned long minsz = offsetofend(struct vfio_precopy_info, dirty_bytes);
	struct vfio_precopy_info info;
	u32 unread;
	int ret;

	if (cmd != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	ret = vph_data_file_dead(file);
	if (ret)
		return ret;
	if (READ_ONCE(file->final))
		return -EINVAL;

	info.flags = 0;
	spin_lock(&file->counts_lock);
	if (file->reinit)
		info.flags |= VFIO_PRECOPY_INFO_REINIT;
	file->reinit = false;
	unread = file->filled - file->drained;
	info.initial_bytes = file->initial_bytes + (file->fill_is_initial ? unread : 0);
	info.dirty_bytes = file->dirty_bytes + (file->fill_is_initial ? 0 : unread);
	spin_unlock(&file->counts_lock);
	return copy_to_user((void __user *)arg, &info, minsz) ? -EFAULT : 0;
}

/* ----------------------------------------------------------------------- loading */

/* What a refused stream has left in the device must not stay there. */
static void vph_load_scrub(struct vph_data_file *file)
{
	struct vph_session *session = file->session;

	if (vph_session_enter(session))
		return;
	vph_migration_scrub(session->hdev, file);
	vph_session_leave(session);
}

static int vph_load_piece(struct vph_data_file *file, const char __user *buf, u32 length)
{
	struct vph_request request = {
		.op = VFIO_PCI_HOOKS_REQ_LOAD,
		.length = length,
	};
	int ret;

	ret = vph_data_file_dead(file) ?: file->error;
	if (ret)
		return ret;
	if (file->loaded)
		return vph_data_file_fail(file, -EINVAL);
	if (file->total + length > file->channel->def->max_state)
		return vph_data_file_fail(file, -EFBIG);
	ret = vph_data_file_bind(file);
	if (ret)
		return vph_data_file_fail(file, ret);
	if (copy_from_user(file->session->stream, buf, length))
		return -EFAULT;

	ret = vph_data_file_ask(file, &request);
	if (ret) {
		ret = vph_data_file_fail(file, ret);
		if (request.answer < 0)
			vph_load_scrub(file);
		return ret;
	}
	file->total += length;
	if (request.answer_flags & VFIO_PCI_HOOKS_ANSWER_END)
		WRITE_ONCE(file->loaded, true);
	return 0;
}

static ssize_t vph_data_file_write(struct file *filp, const char __user *buf, size_t len,
				   loff_t *pos)
{
	struct vph_data_file *file = filp->private_data;
	ktime_t begin = ktime_get();
	size_t done = 0;
	ssize_t ret;

	if (pos)
		return -ESPIPE;
	ret = mutex_lock_interruptible(&file->lock);
	if (ret)
		return ret;
	while (done < len) {
		u32 length = min_t(size_t, len - done, VFIO_PCI_HOOKS_STREAM_SIZE);

		ret = vph_load_piece(file, buf + done, length);
		if (ret)
			break;
		done += length;
	}
	mutex_unlock(&file->lock);
	ret = done ?: ret;
	trace_data(file->channel->def->pdev, true, ret, ktime_us_delta(ktime_get(), begin));
	return ret;
}

/* -------------------------------------------------------------------------- both */

static __poll_t vph_data_file_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct vph_data_file *file = filp->private_data;
	__poll_t mask;

	poll_wait(filp, &file->channel->vmm_wait, wait);
	mask = filp->f_mode & FMODE_READ ? EPOLLIN | EPOLLRDNORM : EPOLLOUT | EPOLLWRNORM;
	return vph_data_file_dead(file) ? mask | EPOLLERR : mask;
}

static int vph_data_file_release(struct inode *inode, struct file *filp)
{
	struct vph_data_file *file = filp->private_data;

	kref_put(&file->kref, vph_data_file_free);
	return 0;
}

static const struct file_operations vph_save_fops = {
	.owner		= THIS_MODULE,
	.read		= vph_data_file_read,
	.poll		= vph_data_file_poll,
	.unlocked_ioctl	= vph_precopy_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.release	= vph_data_file_release,
};

static const struct file_operations vph_load_fops = {
	.owner		= THIS_MODULE,
	.write		= vph_data_file_write,
	.poll		= vph_data_file_poll,
	.release	= vph_data_file_release,
};

struct file *vph_data_file_create(struct vph_device *hdev, bool loading, bool precopy,
				  struct vph_data_file **fp)
{
	struct vph_channel *ch = hdev->channel;
	struct vph_data_file *file;
	struct file *filp;

	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return ERR_PTR(-ENOMEM);
	filp = anon_inode_getfile("[vfio-pci-hooks-data]",
				  loading ? &vph_load_fops : &vph_save_fops, file,
				  loading ? O_WRONLY : O_RDONLY);
	if (IS_ERR(filp)) {
		kfree(file);
		return filp;
	}
	stream_open(filp->f_inode, filp);

	kref_init(&file->kref);
	mutex_init(&file->lock);
	spin_lock_init(&file->counts_lock);
	vph_channel_get(ch);
	file->channel = ch;
	file->final = !precopy;
	file->info_v2 = vph_precopy_info_v2(&hdev->core.vdev);
	file->phase = precopy ? VFIO_PCI_HOOKS_PHASE_PRE_COPY : VFIO_PCI_HOOKS_PHASE_STOP_COPY;
	mutex_lock(&ch->lock);
	file->epoch = ch->epoch;
	file->initial_bytes = ch->initial_bytes;
	mutex_unlock(&ch->lock);

	/* The device's own reference, until vph_data_file_end(). */
	kref_get(&file->kref);
	*fp = file;
	return filp;
}

/* From here on the file is read to its very end. */
void vph_data_file_final(struct vph_data_file *file)
{
	WRITE_ONCE(file->final, true);
}

/* Reads and writes fail from now on; drops the device's reference. */
void vph_data_file_end(struct vph_data_file *file, int error)
{
	WRITE_ONCE(file->ended, error);
	vph_requests_cancel(file->channel, file, error);
	kref_put(&file->kref, vph_data_file_free);
}

/* A complete stream was loaded, and the worker has applied it. */
bool vph_data_file_loaded(struct vph_data_file *file)
{
	return READ_ONCE(file->loaded) && !READ_ONCE(file->error) && !vph_data_file_dead(file);
}

u64 vph_data_file_unread(struct vph_data_file *file)
{
	u64 unread;

	spin_lock(&file->counts_lock);
	unread = file->filled - file->drained;
	spin_unlock(&file->counts_lock);
	return unread;
}
