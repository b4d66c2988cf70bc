// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a worker does to the device and to the guest's memory. The end of its session
 * waits for all of it, and none of it is stopped by a page fault of the worker's own,
 * so that the session can end at any moment.
 */
#include <linux/completion.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vfio_pci_hooks_priv.h"

/* A worker that unmaps its buffer as fast as it is faulted in gets EFAULT. */
#define VPH_FAULT_TRIES	8
#define VPH_KILL_AGAIN	(HZ / 10)

/* Where the unit that begins at offset has to end: at its segment's edge, or the next. */
static u64 vph_edge(struct vph_device *hdev, unsigned int region, u64 offset, u64 end,
		    const struct vph_segment **segmentp)
{
	const struct vph_segment *segment = vph_segment_at(hdev, region, offset, end - offset);

	*segmentp = NULL;
	if (!segment)
		return end;
	if (segment->start > offset)
		return segment->start;
	*segmentp = segment;
	return min(end, segment->end);
}

static int vph_bar_rw(struct vph_session *session, const struct vfio_pci_hooks_rw *rw, u8 *data,
		      bool write)
{
	struct vph_device *hdev = session->hdev;
	u64 end = rw->offset + rw->length;
	u64 here = rw->offset;
	int ret;

	while (here < end) {
		const struct vph_segment *segment;
		u64 edge = vph_edge(hdev, rw->region, here, end, &segment);
		struct vph_walk walk = {
			.access = {
				.region = rw->region,
				.offset = here,
				.length = vph_unit_length(here, edge - here, 8),
				.write = write,
			},
			.hdev = hdev,
			/* A guest being stopped or restored has memory decoding as it left it. */
			.force = READ_ONCE(hdev->mig.state) != VFIO_DEVICE_STATE_RUNNING,
		};

		if (segment)
			walk.links = write ? segment->writers : segment->readers;
		if (write)
			memcpy(walk.access.data, data, walk.access.length);
		ret = vph_walk(&walk, hdev->def->channel + 1);
		if (ret)
			return ret;
		if (!write)
			memcpy(data, walk.access.data, walk.access.length);
		here += walk.access.length;
		data += walk.access.length;
	}
	return 0;
}

static int vph_session_bar_rw(struct vph_session *session, const struct vfio_pci_hooks_rw *rw)
{
	bool write = rw->flags & VFIO_PCI_HOOKS_RW_WRITE;
	void __user *user = u64_to_user_ptr(rw->data);
	void *data;
	int ret;

	data = write ? memdup_user(user, rw->length) : kzalloc(rw->length, GFP_KERNEL_ACCOUNT);
	if (IS_ERR_OR_NULL(data))
		return data ? PTR_ERR(data) : -ENOMEM;

	ret = vph_session_enter(session);
	if (!ret) {
		ret = vph_bar_rw(session, rw, data, write);
		vph_session_leave(session);
	}
	if (!ret && !write && copy_to_user(user, data, rw->length))
		ret = -EFAULT;
	kfree(data);
	return ret;
}

/* vfio-pci's config accesses copy to and from the caller, here without faults. */
static int vph_config_rw(struct vph_session *session, u64 offset, unsigned int length,
			 const struct vph_segment *segment, char __user *user, bool write)
{
	unsigned int tries = VPH_FAULT_TRIES;
	int ret;

	do {
		if (write ? fault_in_readable(user, length) : fault_in_writeable(user, length))
			return -EFAULT;
		ret = vph_session_enter(session);
		if (ret)
			return ret;
		pagefault_disable();
		ret = vph_user_unit(session->hdev, segment, session->channel->def->channel + 1,
				    VFIO_PCI_CONFIG_REGION_INDEX, offset, length, user, write);
		pagefault_enable();
		vph_session_leave(session);
	} while (ret == -EFAULT && --tries);
	return ret;
}

static int vph_session_config_rw(struct vph_session *session, const struct vfio_pci_hooks_rw *rw)
{
	bool write = rw->flags & VFIO_PCI_HOOKS_RW_WRITE;
	char __user *user = u64_to_user_ptr(rw->data);
	u64 end = rw->offset + rw->length;
	u64 here = rw->offset;
	unsigned int unit;
	int ret;

	while (here < end) {
		const struct vph_segment *segment;
		u64 edge = vph_edge(session->hdev, rw->region, here, end, &segment);

		unit = vph_unit_length(here, edge - here, 4);
		ret = vph_config_rw(session, here, unit, segment, user, write);
		if (ret)
			return ret;
		here += unit;
		user += unit;
	}
	return 0;
}

int vph_session_region_rw(struct vph_session *session, const struct vfio_pci_hooks_rw *rw)
{
	struct pci_dev *pdev = session->channel->def->pdev;
	u64 end, size;

	if (rw->region < PCI_STD_NUM_BARS)
		size = pci_resource_len(pdev, array_index_nospec(rw->region, PCI_STD_NUM_BARS));
	else if (rw->region == VFIO_PCI_CONFIG_REGION_INDEX)
		size = pdev->cfg_size;
	else
		return -EINVAL;
	if (rw->length > VPH_MAX_RW || check_add_overflow(rw->offset, (u64)rw->length, &end) ||
	    end > size)
		return -EINVAL;

	/* What a worker had in mind for the device before a reset is not for the one after. */
	if ((rw->flags & VFIO_PCI_HOOKS_RW_WRITE) && READ_ONCE(session->reset_untold))
		return -ESTALE;

	if (rw->region == VFIO_PCI_CONFIG_REGION_INDEX)
		return vph_session_config_rw(session, rw);
	return vph_session_bar_rw(session, rw);
}

/* ------------------------------------------------------------- guest memory */

struct vph_iova_access {
	struct completion done;
	struct vph_device *hdev;
	dma_addr_t iova;
	void *data;
	size_t length;
	bool write;
};

/* The guest's memory is open to the VMM, and to threads without an mm. */
static int vph_iova_thread(void *arg)
{
	struct vph_iova_access *access = arg;
	int ret;

	allow_kernel_signal(SIGKILL);
	ret = vph_iova_rw(access->hdev, access->iova, access->data, access->length, access->write);
	complete(&access->done);
	return ret;
}

/*
 * A page of the guest's may never come: its VMM decides that, with userfaultfd for
 * one, and it may be the one that waits for us. So the access ends in time, killed
 * where it must be, whoever else gives up.
 */
static int vph_iova_access(struct vph_iova_access *access, u32 limit_ms)
{
	struct task_struct *task;
	bool late;
	int ret;

	init_completion(&access->done);
	task = kthread_create(vph_iova_thread, access, "vfio-pci-hooks-iova");
	if (IS_ERR(task))
		return PTR_ERR(task);
	get_task_struct(task);
	wake_up_process(task);

	late = wait_for_completion_killable_timeout(&access->done,
						    msecs_to_jiffies(limit_ms)) <= 0;
	if (late) {
		/* Again, for it may have come before the thread was ready for it. */
		do {
			send_sig(SIGKILL, task, 1);
		} while (!wait_for_completion_timeout(&access->done, VPH_KILL_AGAIN));
	}
	ret = kthread_stop(task);
	put_task_struct(task);
	return late && ret ? -ETIMEDOUT : ret;
}

int vph_session_iova_rw(struct vph_session *session, const struct vfio_pci_hooks_rw *rw)
{
	bool write = rw->flags & VFIO_PCI_HOOKS_RW_WRITE;
	void __user *user = u64_to_user_ptr(rw->data);
	u32 right = session->channel->def->guest_memory;
	struct vph_iova_access iova = {
		.iova = rw->offset,
		.length = rw->length,
		.write = write,
	};
	int ret;

	if (right < (write ? VFIO_PCI_HOOKS_MEMORY_WRITE : VFIO_PCI_HOOKS_MEMORY_READ))
		return -EPERM;
	if (rw->region || rw->length > VPH_MAX_IOVA_RW || rw->offset + rw->length < rw->offset)
		return -EINVAL;

	iova.data = write ? vmemdup_user(user, rw->length) :
			    kvzalloc(rw->length, GFP_KERNEL_ACCOUNT);
	if (IS_ERR_OR_NULL(iova.data))
		return iova.data ? PTR_ERR(iova.data) : -ENOMEM;

	ret = vph_session_enter(session);
	if (!ret) {
		/* Guest memory may fault, and so with any mmap_lock; map_lock is inside that. */
		atomic_inc(&session->iova_users);
		vph_session_leave(session);

		iova.hdev = session->hdev;
		ret = vph_iova_access(&iova, session->channel->def->access_limit_ms);
		if (atomic_dec_and_test(&session->iova_users))
			wake_up_all(&session->channel->vmm_wait);
	}
	if (!ret && !write && copy_to_user(user, iova.data, rw->length))
		ret = -EFAULT;
	kvfree(iova.data);
	return ret;
}
