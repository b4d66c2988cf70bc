// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ioctls and device features of the VMM, and what closes the ways around a trap
 * that lead through them.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "vfio_pci_hooks_priv.h"
#include "trace.h"

/*
 * A device that cannot be reset, but has a reset program, is reset by it. The VMM
 * sees a device that can.
 */
static bool vph_software_reset(struct vph_device *hdev)
{
	return !hdev->core.reset_works && hdev->def->reset;
}

/*
 * As in a reset by vfio-pci, nobody else switches memory decoding meanwhile. A
 * device that sleeps would not hear of it.
 */
static int vph_run_software_reset(struct vph_device *hdev)
{
	struct vfio_pci_core_device *core = &hdev->core;
	int ret = -EIO;

	down_write(&core->memory_lock);
	if (core->pdev->current_state == PCI_D0) {
		vph_reset_done(hdev);
		ret = 0;
	}
	up_write(&core->memory_lock);
	return ret;
}

static int vph_call_default(struct vph_call *call)
{
	struct vfio_device *core_vdev = &call->hdev->core.vdev;

	if (!call->feature && call->cmd == VFIO_DEVICE_RESET && vph_software_reset(call->hdev))
		return vph_run_software_reset(call->hdev);
	if (call->feature)
		return vfio_pci_core_ioctl_feature(core_vdev, call->call.number, call->user,
						   call->size);
	return vfio_pci_core_ioctl(core_vdev, call->cmd, (unsigned long)call->user);
}

/* Copies the argument, again: the rest of the chain has put its result there. */
int vph_call_refetch(struct vph_call *call)
{
	return copy_from_user(call->call.data, call->user, call->size) ? -EFAULT : 0;
}

/* Asks the handlers from that one on, then vfio-pci's default. Never positive. */
int vph_call_rest(struct vph_call *call, unsigned int from)
{
	struct vph_device *hdev = call->hdev;
	unsigned int i;
	int ret;

	for (i = from; i < hdev->nr_links; i++) {
		struct vfio_pci_hooks_link *link = &hdev->links[i];
		int (*ask)(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_call *call);

		ask = call->feature ? link->ops->device_feature : link->ops->ioctl;
		if (!(call->links & BIT(i)) || !ask)
			continue;
		call->call.length = call->size;
		ret = ask(link, &call->call);
		trace_call(hdev->core.pdev, link->ops->name, call->feature, call->call.number,
			   call->call.length, ret);
		if (ret < 0)
			return ret;
		if (!ret) {
			size_t length = min_t(size_t, call->call.length, call->size);

			return copy_to_user(call->user, call->call.data, length) ? -EFAULT : 0;
		}
	}
	ret = vph_call_default(call);
	trace_call(hdev->core.pdev, "vfio-pci", call->feature, call->call.number, call->size, ret);
	return ret;
}

static int vph_call(struct vph_call *call)
{
	int ret;

	if (!call->links)
		return vph_call_default(call);
	if (call->size > VPH_CALL_SIZE)
		return -E2BIG;

	/* Room for the longest: the worker's answer comes in the same buffer. */
	call->call.data = kzalloc(VPH_CALL_SIZE, GFP_KERNEL_ACCOUNT);
	if (!call->call.data)
		return -ENOMEM;
	ret = vph_call_refetch(call);
	if (!ret)
		ret = vph_call_rest(call, 0);
	kfree(call->call.data);
	return ret;
}

/* -------------------------------------------------------------------- ioctls */

int vph_get_region_info_caps(struct vfio_device *core_vdev, struct vfio_region_info *info,
			     struct vfio_info_cap *caps)
{
	struct vph_device *hdev = vph_device(core_vdev);

	if (vph_region_info_ours(hdev, info->index))
		return vph_region_info(hdev, info, caps);
	return vfio_pci_ioctl_get_region_info(core_vdev, info, caps);
}

/* vfio-pci's answer goes straight to the VMM, so where it is not ours it is as a whole. */
static long vph_get_region_info(struct vph_device *hdev, unsigned int cmd, void __user *arg)
{
	unsigned long minsz = offsetofend(struct vfio_region_info, offset);
	struct vfio_info_cap caps = {};
	struct vfio_region_info info;
	long ret;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	if (!vph_region_info_ours(hdev, info.index))
		return vfio_pci_core_ioctl(&hdev->core.vdev, cmd, (unsigned long)arg);

	ret = vph_region_info(hdev, &info, &caps);
	if (ret)
		goto out_free;

	if (caps.size) {
		info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
		if (info.argsz < sizeof(info) + caps.size) {
			info.argsz = sizeof(info) + caps.size;
			info.cap_offset = 0;
		} else {
			vfio_info_cap_shift(&caps, sizeof(info));
			ret = -EFAULT;
			if (copy_to_user(arg + sizeof(info), caps.buf, caps.size))
				goto out_free;
			info.cap_offset = sizeof(info);
		}
	}
	ret = copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
out_free:
	kfree(caps.buf);
	return ret;
}

/*
 * An ioeventfd writes the BAR with no handler in the way. Whether its register is
 * trapped could be seen only in a copy of the argument, which vfio-pci reads again:
 * so a device with traps has none. Nor has one that owns its migration: nobody would
 * see the page touched.
 */
static long vph_ioeventfd(struct vph_device *hdev, unsigned int cmd, void __user *arg)
{
	struct vfio_device_ioeventfd ioeventfd;
	unsigned long minsz = offsetofend(struct vfio_device_ioeventfd, fd);
	unsigned int length, bar;

	if (copy_from_user(&ioeventfd, arg, minsz))
		return -EFAULT;
	length = ioeventfd.flags & VFIO_DEVICE_IOEVENTFD_SIZE_MASK;
	bar = ioeventfd.offset >> VFIO_PCI_OFFSET_SHIFT;
	if (ioeventfd.argsz < minsz ||
	    (bar < PCI_STD_NUM_BARS &&
	     vph_segment_at(hdev, bar, ioeventfd.offset & VFIO_PCI_OFFSET_MASK, length)))
		return -EINVAL;
	return -ENOTTY;
}

static long vph_get_info(struct vph_call *call)
{
	struct vfio_device_info __user *info = call->user;
	u32 flags;
	int ret;

	ret = vph_call(call);
	if (ret || !vph_software_reset(call->hdev))
		return ret;
	if (get_user(flags, &info->flags) ||
	    put_user(flags | VFIO_DEVICE_FLAGS_RESET, &info->flags))
		return -EFAULT;
	return 0;
}

long vph_ioctl(struct vfio_device *core_vdev, unsigned int cmd, unsigned long arg)
{
	struct vph_device *hdev = vph_device(core_vdev);
	void __user *uarg = (void __user *)arg;
	unsigned int nr = _IOC_NR(cmd) - VFIO_BASE;
	struct vph_call call = {
		.hdev = hdev,
		.cmd = cmd,
		.user = uarg,
		.call.number = nr,
	};
	u32 argsz;

	if (_IOC_TYPE(cmd) == VFIO_TYPE && nr < ARRAY_SIZE(hdev->ioctls))
		call.links = hdev->ioctls[nr];
	if (call.links && cmd != VFIO_DEVICE_RESET) {
		if (get_user(argsz, (u32 __user *)uarg))
			return -EFAULT;
		if (argsz < sizeof(argsz))
			return -EINVAL;
		call.size = argsz;
	}

	switch (cmd) {
	case VFIO_DEVICE_GET_REGION_INFO:
		return vph_get_region_info(hdev, cmd, uarg);
	case VFIO_DEVICE_IOEVENTFD:
		if (hdev->bars_trapped || vph_owns_migration(hdev))
			return vph_ioeventfd(hdev, cmd, uarg);
		return vph_call(&call);
	case VFIO_DEVICE_GET_INFO:
		return vph_get_info(&call);
	default:
		return vph_call(&call);
	}
}

/* ------------------------------------------------------------ device features */

int vph_device_feature(struct vfio_device *core_vdev, u32 flags, void __user *arg, size_t argsz)
{
	struct vph_device *hdev = vph_device(core_vdev);
	u32 feature = flags & VFIO_DEVICE_FEATURE_MASK;
	struct vph_call call = {
		.hdev = hdev,
		.feature = true,
		.user = arg,
		.size = argsz,
		.call.number = flags,
	};

	/* A buffer over a BAR would be one more way around its traps. */
	if (vph_is_dma_buf(feature) && hdev->bars_trapped)
		return -EOPNOTSUPP;
	if (feature < ARRAY_SIZE(hdev->device_features))
		call.links = hdev->device_features[feature];
	return vph_call(&call);
}
