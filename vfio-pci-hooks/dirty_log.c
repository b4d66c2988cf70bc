// SPDX-License-Identifier: GPL-2.0-only
/*
 * DMA logging. Unless the chain has a logger, nobody knows which pages the device has
 * written, so every page that is asked for is one: a VMM on IOMMUFD, which sees no DMA
 * itself, would lose what the device wrote otherwise.
 *
 * It goes on over resets and in every migration state, until it is stopped or the
 * device is closed.
 */
#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/log2.h>

#include "vfio_pci_hooks_priv.h"
#include "trace.h"

struct vfio_pci_hooks_log {
	struct iova_bitmap *dirty;
	u64 iova;
	u64 length;
};

/* NULL: every page is dirty. */
static struct vfio_pci_hooks_link *vph_logger(struct vph_device *hdev)
{
	return hdev->def->logger < 0 ? NULL : &hdev->links[hdev->def->logger];
}

static void vph_log_trace(struct vph_device *hdev, u32 feature, int ret)
{
	trace_call(hdev->core.pdev, "dma-log", true, feature, 0, ret);
}

static int vph_log_check(struct rb_root_cached *ranges, u64 page_size)
{
	struct interval_tree_node *node;

	if (!is_power_of_2(page_size))
		return -EINVAL;
	/* An empty range, which vfio lets through, ends before it begins. */
	for (node = interval_tree_iter_first(ranges, 0, ULONG_MAX); node;
	     node = interval_tree_iter_next(node, 0, ULONG_MAX))
		if (node->last - node->start == ULONG_MAX)
			return -EINVAL;
	return 0;
}

static int vph_log_begin(struct vph_device *hdev)
{
	struct vfio_pci_hooks_link *logger = vph_logger(hdev);
	int ret = 0;

	if (mutex_lock_killable(&hdev->log_lock))
		return -EINTR;
	if (atomic_read(&hdev->logging))
		ret = -EINVAL;
	else if (logger)
		ret = logger->ops->log_start(logger);
	if (!ret)
		atomic_set(&hdev->logging, true);
	mutex_unlock(&hdev->log_lock);
	return ret;
}

static int vph_log_start(struct vfio_device *core_vdev, struct rb_root_cached *ranges, u32 nnodes,
			 u64 *page_size)
{
	struct vph_device *hdev = vph_device(core_vdev);
	int ret;

	ret = vph_log_check(ranges, *page_size);
	if (!ret)
		ret = vph_log_begin(hdev);
	if (!ret)
		*page_size = max_t(u64, *page_size, SZ_4K);
	vph_log_trace(hdev, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, ret);
	return ret;
}

static int vph_log_stop(struct vfio_device *core_vdev)
{
	struct vph_device *hdev = vph_device(core_vdev);
	struct vfio_pci_hooks_link *logger = vph_logger(hdev);
	int ret = 0;

	if (mutex_lock_killable(&hdev->log_lock)) {
		ret = -EINTR;
	} else {
		if (atomic_xchg(&hdev->logging, false) && logger)
			logger->ops->log_stop(logger);
		mutex_unlock(&hdev->log_lock);
	}
	vph_log_trace(hdev, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, ret);
	return ret;
}

/**
 * vfio_pci_hooks_log_dirty - The device may have written these bytes
 * @log: the REPORT
 * @iova: of the first; what the REPORT does not ask for is left out
 * @length: how many
 */
void vfio_pci_hooks_log_dirty(struct vfio_pci_hooks_log *log, u64 iova, u64 length)
{
	u64 last = min(iova + length - 1, log->iova + log->length - 1);
	u64 first = max(iova, log->iova);

	if (!length || first > last)
		return;
	iova_bitmap_set(log->dirty, first, last - first + 1);
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_log_dirty);

static int vph_log_read_and_clear(struct vfio_device *core_vdev, unsigned long iova,
				  unsigned long length, struct iova_bitmap *dirty)
{
	struct vph_device *hdev = vph_device(core_vdev);
	struct vfio_pci_hooks_link *logger = vph_logger(hdev);
	struct vfio_pci_hooks_log log = { dirty, iova, length };
	int ret = atomic_read(&hdev->logging) && length ? 0 : -EINVAL;

	if (!ret && (!logger || logger->ops->log_report(logger, iova, length, &log)))
		vfio_pci_hooks_log_dirty(&log, iova, length);
	vph_log_trace(hdev, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, ret);
	return ret;
}

const struct vfio_log_ops vph_log_ops = {
	.log_start = vph_log_start,
	.log_stop = vph_log_stop,
	.log_read_and_clear = vph_log_read_and_clear,
};
