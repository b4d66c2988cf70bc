// SPDX-License-Identifier: GPL-2.0-only
/*
 * Data files: the device state as the VMM reads or writes it. The worker fills or
 * drains the stream buffer of its session, slice by slice, and the VMM's thread copies
 * to or from it: one copy.
 *
 * The slices are a ring. A file has one request, which whoever hands over its answer
 * posts again for the next slice: so the worker goes on while the VMM copies, as far as
 * there are slices, and whatever else is asked of it waits behind one slice at most.
 *
 *   SAVE  reads ahead. What goes wrong ahead is told when all before it has been read.
 *   LOAD  writes behind. A write() ends with the worker's word on its last byte, unless
 *         the worker has promised that it will have none to say so soon. What goes wrong
 *         with bytes that nobody waited for is told by the next write(), and by the arc out
 *         of RESUMING, which without END fails.
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

#define VPH_SLICE	VFIO_PCI_HOOKS_STREAM_SLICE

struct vph_slice {
	u32 length;
	bool initial;			/* its bytes count as initial ones */
};

struct vph_data_file {
	struct kref kref;		/* the descriptor, and the device as long as it goes on */
	struct vph_channel *channel;	/* referenced */
	unsigned long epoch;
	int ended;			/* errno; written once, without a lock */
	bool final;			/* STOP_COPY has begun; written once, without a lock */
	bool info_v2;			/* the VMM understands VFIO_PRECOPY_INFO_REINIT */

	struct mutex lock;		/* of who reads or writes; all below */
	struct vph_session *session;	/* the one that began the stream; referenced */
	int error;			/* sticky; may be read without the lock */
	size_t taken;			/* bytes of a write() that has not ended */
	u32 patience_ends;		/* of request, when somebody who does not wait... */
	unsigned long patience_since;	/* ...found nothing first */

	/* vph_channel.lock */
	struct vph_request request;	/* the only one */
	int failed;			/* what ended it; to be told when the slices are empty */
	bool refused;			/* by the worker */
	bool begun;
	bool loaded;			/* may be read without the lock */
	u32 phase;			/* of the last request; changes with vph_data_file.lock */
	bool phase_end;
	bool nothing;			/* came last, without the phase's end; to be told once */
	u64 total;
	struct vph_slice slices[VFIO_PCI_HOOKS_STREAM_SLICES];
	u32 nr_slices;			/* that the worker has mapped */
	u32 first;			/* SAVE: read next. LOAD: with the worker */
	u32 nr_full;			/* from that one on */
	u32 drained;			/* bytes of the first */
	u64 queued;			/* LOAD: put into slices; changes with vph_data_file.lock */
	u64 promised;			/* LOAD: the worker has no word on any byte before */
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

	/* Whoever revokes: the VMM goes on when that session can touch nothing. */
	if (error == -EIO)
		vph_session_wait_revoked(file->channel);
	if (dead)
		return dead;
	if (!file->error) {
		pci_notice_ratelimited(file->channel->def->pdev, "device state: %d after %llu bytes\n",
				       error, file->total);
		WRITE_ONCE(file->error, error);
	}
	return file->error;
}

/* The session that the stream began with; a stream does not go on with another. */
static int vph_data_file_bind(struct vph_data_file *file, bool may_wait)
{
	struct vph_session *session;

	if (!file->session) {
		session = vph_session_wait(file->channel, file->epoch, &file->ended, may_wait);
		if (IS_ERR(session))
			return PTR_ERR(session);
		WRITE_ONCE(file->session, session);
	}
	return READ_ONCE(file->session->over) ? -EIO : 0;
}

static bool vph_data_file_asks(const struct vph_data_file *file)
{
	return file->request.state != VPH_REQUEST_DONE;
}

/* About the slice that comes at this place of the ring. */
static int vph_data_file_ask_locked(struct vph_data_file *file, u32 op, u32 place, u32 length)
{
	struct vph_request *request = &file->request;

	request->op = op;
	request->index = file->phase;
	request->flags = file->begun ? 0 : VFIO_PCI_HOOKS_REQ_BEGIN;
	request->offset = (u64)place * VPH_SLICE;
	request->length = length;
	request->session = file->session;
	return vph_request_post_locked(file->channel, request);
}

/* Its first answer says that the worker has mapped what it will. */
static void vph_data_file_begun_locked(struct vph_data_file *file)
{
	u32 mapped = READ_ONCE(file->session->stream_mapped) / VPH_SLICE;

	if (!file->begun)
		file->nr_slices = clamp_t(u32, mapped, 1, VFIO_PCI_HOOKS_STREAM_SLICES);
	file->begun = true;
}

static void *vph_slice_at(const struct vph_data_file *file, u32 place)
{
	return file->session->stream + place * VPH_SLICE;
}

static u32 vph_slice_free(const struct vph_data_file *file)
{
	return (file->first + file->nr_full) % file->nr_slices;
}

static void vph_slice_done_locked(struct vph_data_file *file)
{
	file->first = (file->first + 1) % file->nr_slices;
	file->nr_full--;
	file->drained = 0;
}

/*
 * Until the request has ended since `ends` was read. Who does not want to wait gets
 * -EAGAIN, and a worker has as much time after the first of these as it has otherwise.
 */
static int vph_data_file_await(struct vph_data_file *file, u32 ends, bool may_wait)
{
	u32 limit_ms = file->channel->def->state_limit_ms;
	unsigned long since = jiffies;
	int ret;

	if (!may_wait) {
		if (!file->patience_since || file->patience_ends != ends) {
			file->patience_ends = ends;
			file->patience_since = since ?: 1;
		}
		since = file->patience_since;
		if (time_before(jiffies, since + msecs_to_jiffies(limit_ms)))
			return -EAGAIN;
	}
	ret = vph_request_await(file->channel, &file->request, ends, since, limit_ms);
	if (ret == -ETIME)
		return vph_data_file_fail(file, -ETIMEDOUT);
	/* Anything else has its place among the slices. */
	return ret == -EINTR ? ret : 0;
}

/* ------------------------------------------------------------------------ saving */

/* Initial bytes only ever become fewer, unless the VMM can be told of a new beginning. */
static void vph_save_count_locked(struct vph_data_file *file, u64 initial, u64 dirty)
{
	if (initial > file->initial_bytes && !file->info_v2) {
		dirty += initial - file->initial_bytes;
		initial = file->initial_bytes;
	}
	if (initial > file->initial_bytes)
		file->reinit = true;
	file->initial_bytes = initial;
	file->dirty_bytes = dirty;
}

/* Whether the worker can be asked for more of the phase that is read. */
static bool vph_save_may_ask(const struct vph_data_file *file)
{
	return !vph_data_file_asks(file) && !file->failed && !file->phase_end && !file->nothing &&
	       file->nr_full < file->nr_slices;
}

static int vph_save_ask_locked(struct vph_data_file *file)
{
	return vph_data_file_ask_locked(file, VFIO_PCI_HOOKS_REQ_SAVE, vph_slice_free(file),
					VPH_SLICE);
}

/*
 * Ahead of the VMM, as long as bytes come. The other phase begins with a read(): by
 * then the worker has been told of the arc.
 */
static void vph_save_ahead_locked(struct vph_data_file *file)
{
	if (!vph_save_may_ask(file) ||
	    (READ_ONCE(file->final) && file->phase != VFIO_PCI_HOOKS_PHASE_STOP_COPY))
		return;
	/* Else the next read() finds out why not. */
	vph_save_ask_locked(file);
}

static void vph_save_done(struct vph_channel *ch, struct vph_request *request)
{
	struct vph_data_file *file = container_of(request, struct vph_data_file, request);
	struct vph_slice *slice;

	file->failed = request->error ?: min(request->answer, 0);
	if (file->failed)
		return;
	vph_data_file_begun_locked(file);
	file->total += request->answer_length;
	if (file->total > ch->def->max_state) {
		file->failed = -EFBIG;
		return;
	}
	file->phase_end = request->answer_flags & VFIO_PCI_HOOKS_ANSWER_END;
	file->nothing = !request->answer_length && !file->phase_end;
	if (request->answer_length) {
		slice = &file->slices[vph_slice_free(file)];
		slice->length = request->answer_length;
		slice->initial = file->initial_bytes;
		file->nr_full++;
	}
	vph_save_count_locked(file, request->initial_bytes, request->dirty_bytes);
	vph_touched_told(ch);
	vph_save_ahead_locked(file);
}

/* Bytes that are in slices: those that count as initial, or the others. */
static u64 vph_save_unread_locked(const struct vph_data_file *file, bool initial)
{
	u64 unread = 0;
	u32 i;

	lockdep_assert_held(&file->channel->lock);
	for (i = 0; i < file->nr_full; i++) {
		const struct vph_slice *slice =
			&file->slices[(file->first + i) % file->nr_slices];

		if (slice->initial == initial)
			unread += slice->length - (i ? 0 : file->drained);
	}
	return unread;
}

/* What nothing that was saved before comes before. */
static int vph_save_broken_locked(struct vph_data_file *file)
{
	int ret = vph_data_file_dead(file) ?: file->error;

	if (ret)
		return ret;
	if (file->channel->incomplete)
		return -ENODATA;
	return file->session && file->session->over ? -EIO : 0;
}

/*
 * 1: bytes are there. 0: the end. -ENOMSG: nothing more for now. -ENOTCONN: the stream
 * has no session yet. -EINPROGRESS: the worker has been asked. Else what went wrong.
 */
static int vph_save_look_locked(struct vph_data_file *file)
{
	int ret = vph_save_broken_locked(file);

	if (ret)
		return ret;
	if (!file->session)
		return -ENOTCONN;
	/* Whoever is in STOP_COPY must not hear that nothing came in PRE_COPY. */
	if (READ_ONCE(file->final) && file->phase != VFIO_PCI_HOOKS_PHASE_STOP_COPY &&
	    !vph_data_file_asks(file)) {
		file->phase = VFIO_PCI_HOOKS_PHASE_STOP_COPY;
		file->phase_end = false;
		file->nothing = false;
	}
	if (vph_save_may_ask(file))
		ret = vph_save_ask_locked(file);
	if (file->nr_full)
		return 1;
	if (vph_data_file_asks(file))
		return -EINPROGRESS;
	if (ret || file->failed)
		return ret ?: file->failed;
	file->nothing = false;
	return file->phase == VFIO_PCI_HOOKS_PHASE_STOP_COPY ? 0 : -ENOMSG;
}

/* 1, 0, -ENOMSG as above; or an error. */
static int vph_save_look(struct vph_data_file *file, bool may_wait)
{
	struct vph_channel *ch = file->channel;
	u32 ends;
	int ret;

	for (;;) {
		mutex_lock(&ch->lock);
		ret = vph_save_look_locked(file);
		ends = file->request.ends;
		mutex_unlock(&ch->lock);

		if (ret >= 0 || ret == -ENOMSG)
			return ret;
		if (ret == -ENOTCONN)
			ret = vph_data_file_bind(file, may_wait);
		else if (ret == -EINPROGRESS)
			ret = vph_data_file_await(file, ends, may_wait);
		if (ret == -EAGAIN || ret == -EINTR)
			return ret;
		if (ret)
			return vph_data_file_fail(file, ret);
	}
}

static ssize_t vph_save_drain(struct vph_data_file *file, char __user *buf, size_t len, bool *more)
{
	struct vph_slice *slice = &file->slices[file->first];
	u32 length = min_t(size_t, len, slice->length - file->drained);
	struct vph_channel *ch = file->channel;
	int ret;

	if (copy_to_user(buf, vph_slice_at(file, file->first) + file->drained, length))
		return -EFAULT;

	mutex_lock(&ch->lock);
	/* Only what a worker with every right had put there counts. */
	ret = vph_save_broken_locked(file);
	if (!ret) {
		file->drained += length;
		if (file->drained == slice->length) {
			vph_slice_done_locked(file);
			vph_save_ahead_locked(file);
		}
		*more = file->nr_full;
	}
	mutex_unlock(&ch->lock);
	/* No conditional expression: it would make the error unsigned, and so a length. */
	if (ret)
		return vph_data_file_fail(file, ret);
	return length;
}

/* Waits for the first byte only. */
static ssize_t vph_save_read(struct vph_data_file *file, char __user *buf, size_t len,
			     bool may_wait)
{
	size_t done = 0;
	bool more;
	ssize_t ret;

	if (!len)
		return 0;
	ret = vph_save_look(file, may_wait);
	if (ret <= 0)
		return ret;
	do {
		ret = vph_save_drain(file, buf + done, len - done, &more);
		if (ret < 0)
			break;
		done += ret;
	} while (more && done < len);
	return done ?: ret;
}

/* As the descriptor wants it: for the file, or without waiting for it. */
static int vph_data_file_lock(struct vph_data_file *file, bool may_wait)
{
	if (may_wait)
		return mutex_lock_interruptible(&file->lock);
	return mutex_trylock(&file->lock) ? 0 : -EAGAIN;
}

static ssize_t vph_data_file_read(struct file *filp, char __user *buf, size_t len, loff_t *pos)
{
	struct vph_data_file *file = filp->private_data;
	bool may_wait = !(filp->f_flags & O_NONBLOCK);
	ktime_t begin = ktime_get();
	ssize_t ret;

	if (pos)
		return -ESPIPE;
	ret = vph_data_file_lock(file, may_wait);
	if (ret)
		return ret;
	ret = vph_save_read(file, buf, len, may_wait);
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
	mutex_lock(&file->channel->lock);
	if (file->reinit)
		info.flags |= VFIO_PRECOPY_INFO_REINIT;
	file->reinit = false;
	info.initial_bytes = file->initial_bytes + vph_save_unread_locked(file, true);
	info.dirty_bytes = file->dirty_bytes + vph_save_unread_locked(file, false) +
			   vph_touched_bytes(file->channel);
	mutex_unlock(&file->channel->lock);
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

static int vph_load_ask_locked(struct vph_data_file *file)
{
	return vph_data_file_ask_locked(file, VFIO_PCI_HOOKS_REQ_LOAD, file->first,
					file->slices[file->first].length);
}

/* No promise is taken back, and none goes beyond what a stream may have. */
static void vph_load_promise_locked(struct vph_data_file *file, u64 ahead)
{
	u64 most = file->channel->def->max_state - file->total;

	file->promised = max(file->promised, file->total + min(ahead, most));
}

static void vph_load_done(struct vph_channel *ch, struct vph_request *request)
{
	struct vph_data_file *file = container_of(request, struct vph_data_file, request);

	file->failed = request->error ?: min(request->answer, 0);
	if (file->failed) {
		file->refused = !request->error;
		file->nr_full = 0;
		return;
	}
	vph_data_file_begun_locked(file);
	file->total += request->length;
	vph_slice_done_locked(file);
	if (request->answer_flags & VFIO_PCI_HOOKS_ANSWER_END) {
		WRITE_ONCE(file->loaded, true);
		/* Bytes behind the end, or a promise that there would be some. */
		if (file->nr_full || file->total < file->promised)
			file->failed = -EINVAL;
		file->nr_full = 0;
		return;
	}
	vph_load_promise_locked(file, request->dirty_bytes);
	if (file->nr_full)
		file->failed = vph_load_ask_locked(file);
}

/*
 * Where in the stream buffer the next byte goes: behind the last ones, unless these are
 * with the worker, which only has the first slice. At the beginning of a slice: only
 * where one is free.
 */
static u32 vph_load_place(const struct vph_data_file *file)
{
	u32 last = (file->first + file->nr_full - 1) % file->nr_slices;

	if (file->nr_full > 1 && file->slices[last].length < VPH_SLICE)
		return last * VPH_SLICE + file->slices[last].length;
	return vph_slice_free(file) * VPH_SLICE;
}

static bool vph_load_has_room(const struct vph_data_file *file)
{
	return file->nr_full < file->nr_slices || vph_load_place(file) % VPH_SLICE;
}

/* 0: nobody has to wait for what was taken. -EINPROGRESS: until it is loaded. */
static int vph_load_look_locked(struct vph_data_file *file, size_t len, bool *room)
{
	int ret = vph_data_file_dead(file) ?: file->error ?: file->failed;

	lockdep_assert_held(&file->channel->lock);
	if (ret)
		return ret;
	if (file->session && file->session->over)
		return -EIO;
	if (file->loaded && file->taken < len)
		return -EINVAL;
	*room = vph_load_has_room(file);
	return file->nr_full && file->queued > file->promised ? -EINPROGRESS : 0;
}

/* Into a slice. 0 as well where the VMM's memory ends, with *len cut to what was taken. */
static int vph_load_take(struct vph_data_file *file, const char __user *buf, size_t *len,
			 bool may_wait)
{
	struct vph_channel *ch = file->channel;
	struct vph_slice *slice;
	u32 place, length;
	bool room;
	int ret;

	ret = vph_data_file_bind(file, may_wait);
	if (ret)
		return ret;
	/* Nobody else fills slices, and those before it only become fewer. */
	mutex_lock(&ch->lock);
	place = vph_load_place(file);
	mutex_unlock(&ch->lock);
	length = min_t(size_t, *len - file->taken, VPH_SLICE - place % VPH_SLICE);
	if (copy_from_user(file->session->stream + place, buf + file->taken, length)) {
		*len = file->taken;
		return *len ? 0 : -EFAULT;
	}

	guard(mutex)(&ch->lock);
	ret = vph_load_look_locked(file, *len, &room);
	if (ret && ret != -EINPROGRESS)
		return ret;
	/* The worker was given the slice meanwhile, without these bytes: once more. */
	if (place != vph_load_place(file))
		return 0;
	slice = &file->slices[place / VPH_SLICE];
	if (place % VPH_SLICE == 0) {
		slice->length = 0;
		file->nr_full++;
	}
	slice->length += length;
	file->queued += length;
	file->taken += length;
	return vph_data_file_asks(file) ? 0 : vph_load_ask_locked(file);
}

static int vph_load_fail(struct vph_data_file *file, int error)
{
	error = vph_data_file_fail(file, error);
	file->taken = 0;
	if (file->refused)
		vph_load_scrub(file);
	file->refused = false;
	return error;
}

/*
 * Ends with the worker's word on all of it, for the VMM takes what was written for
 * loaded; or earlier, where none of it brings that word. Who does not want to wait gets
 * the bytes taken that need not be waited for, or else -EAGAIN, and writes the same once
 * more.
 */
static ssize_t vph_load_write(struct vph_data_file *file, const char __user *buf, size_t len,
			      bool may_wait)
{
	struct vph_channel *ch = file->channel;
	bool room, behind;
	u32 ends;
	int ret;

	if (file->taken > len)
		return -EINVAL;
	if (len - file->taken > ch->def->max_state - file->queued)
		return vph_load_fail(file, -EFBIG);
	for (;;) {
		mutex_lock(&ch->lock);
		ret = vph_load_look_locked(file, len, &room);
		ends = file->request.ends;
		mutex_unlock(&ch->lock);

		behind = !ret;
		if (behind && file->taken == len)
			break;
		if (behind || ret == -EINPROGRESS)
			ret = room && file->taken < len ?
			      vph_load_take(file, buf, &len, may_wait) :
			      vph_data_file_await(file, ends, may_wait);
		if (ret == -EAGAIN && behind && file->taken) {
			len = file->taken;
			break;
		}
		if (ret == -EAGAIN || ret == -EINTR || ret == -EFAULT)
			return ret;
		if (ret)
			return vph_load_fail(file, ret);
	}
	file->taken = 0;
	return len;
}

static ssize_t vph_data_file_write(struct file *filp, const char __user *buf, size_t len,
				   loff_t *pos)
{
	struct vph_data_file *file = filp->private_data;
	bool may_wait = !(filp->f_flags & O_NONBLOCK);
	ktime_t begin = ktime_get();
	ssize_t ret;

	if (pos)
		return -ESPIPE;
	ret = vph_data_file_lock(file, may_wait);
	if (ret)
		return ret;
	ret = vph_load_write(file, buf, len, may_wait);
	mutex_unlock(&file->lock);
	trace_data(file->channel->def->pdev, true, ret, ktime_us_delta(ktime_get(), begin));
	return ret;
}

/* -------------------------------------------------------------------------- both */

/*
 * Ready: a read() or write() has something to say, or begins what it would wait for, or
 * a write() ends without the worker. Else not while the worker is asked, or where there
 * is none to ask yet.
 */
static __poll_t vph_data_file_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct vph_data_file *file = filp->private_data;
	struct vph_channel *ch = file->channel;
	bool saving = filp->f_mode & FMODE_READ;
	__poll_t mask;

	poll_wait(filp, &ch->vmm_wait, wait);
	mask = saving ? EPOLLIN | EPOLLRDNORM : EPOLLOUT | EPOLLWRNORM;
	guard(mutex)(&ch->lock);
	if (vph_data_file_dead(file))
		return mask | EPOLLERR;
	if (READ_ONCE(file->error) || (saving && (file->nr_full || ch->incomplete)))
		return mask;
	if (!vph_data_file_asks(file))
		return (READ_ONCE(file->session) ?: ch->session) ? mask : 0;
	if (!saving && vph_load_has_room(file) && file->queued < file->promised)
		return mask;
	return 0;
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
	vph_channel_get(ch);
	file->channel = ch;
	file->nr_slices = 1;
	file->request.state = VPH_REQUEST_DONE;
	file->request.owner = file;
	file->request.done = loading ? vph_load_done : vph_save_done;
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
	return READ_ONCE(file->loaded) && !READ_ONCE(file->failed) && !READ_ONCE(file->error) &&
	       !vph_data_file_dead(file);
}

/* What is there that nobody has read, and what the worker has still to send. */
void vph_data_file_left(struct vph_data_file *file, u64 *unread, u64 *left)
{
	guard(mutex)(&file->channel->lock);
	*unread = vph_save_unread_locked(file, true) + vph_save_unread_locked(file, false);
	*left = file->initial_bytes + file->dirty_bytes + vph_touched_bytes(file->channel);
}
