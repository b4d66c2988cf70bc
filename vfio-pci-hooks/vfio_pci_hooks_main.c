// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio-pci-hooks: a VFIO PCI driver whose operations walk a chain of handlers.
 *
 * A function without a definition gets the same operations as under vfio-pci.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "vfio_pci_hooks_priv.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

int vph_copy_in(void *to, size_t size, void __user *from)
{
	u32 argsz;
	int ret;

	if (get_user(argsz, (u32 __user *)from))
		return -EFAULT;
	/* argsz and flags */
	if (argsz < 2 * sizeof(u32) || argsz > PAGE_SIZE)
		return -EINVAL;
	ret = copy_struct_from_user(to, size, from, argsz);
	/* The value that was looked at, not one that came since. */
	if (!ret)
		*(u32 *)to = argsz;
	return ret;
}

int vph_copy_out(void __user *to, const void *from, size_t size, u32 argsz)
{
	return copy_to_user(to, from, min_t(size_t, size, argsz)) ? -EFAULT : 0;
}

static int vph_plain_open_device(struct vfio_device *core_vdev)
{
	struct vph_device *hdev = vph_device(core_vdev);
	int ret;

	ret = vfio_pci_core_enable(&hdev->core);
	if (ret)
		return ret;

	vfio_pci_core_finish_enable(&hdev->core);
	return 0;
}

/*
 * Maps the BARs that handlers and programs use while nobody else can, so that
 * neither a reset nor two threads at once meet a BAR that is not mapped.
 */
static int vph_map_bars(struct vph_device *hdev)
{
	const struct vph_definition *def = hdev->def;
	const struct vph_program *program[] = { def->stop, def->start, def->reset };
	unsigned long bars = 0;
	unsigned int i, j, bar;

	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++)
		if (hdev->segments[bar].nr)
			__set_bit(bar, &bars);
	for (i = 0; i < ARRAY_SIZE(program); i++)
		for (j = 0; program[i] && j < program[i]->nr; j++)
			if (program[i]->steps[j].op != VFIO_PCI_HOOKS_STEP_DELAY)
				__set_bit(program[i]->steps[j].bar, &bars);

	for_each_set_bit(bar, &bars, PCI_STD_NUM_BARS) {
		void __iomem *io = vph_iomap(&hdev->core, bar);

		if (IS_ERR(io))
			return PTR_ERR(io);
	}
	/* A worker has them all; one that cannot be mapped fails where it is used. */
	for (bar = 0; hdev->channel && bar < PCI_STD_NUM_BARS; bar++)
		if (pci_resource_len(hdev->core.pdev, bar))
			vph_iomap(&hdev->core, bar);
	return 0;
}

static int vph_open_device(struct vfio_device *core_vdev)
{
	struct vph_device *hdev = vph_device(core_vdev);
	int ret;

	ret = vfio_pci_core_enable(&hdev->core);
	if (ret)
		return ret;

	ret = vph_map_bars(hdev);
	if (ret)
		goto out_disable;
	ret = vph_chain_open(hdev);
	if (ret)
		goto out_disable;

	mutex_lock(&hdev->open_lock);
	/*
	 * The reset that enabling has done came before the BARs were mapped. A program may
	 * fill much memory: until then nobody is expected to serve.
	 */
	vph_program_run_reset(hdev);
	WRITE_ONCE(hdev->open, true);
	mutex_unlock(&hdev->open_lock);

	vfio_pci_core_finish_enable(&hdev->core);
	atomic_set(&hdev->logging, false);
	vph_migration_open(hdev);
	if (hdev->channel)
		vph_channel_open(hdev->channel, hdev);
	return 0;

out_disable:
	vfio_pci_core_disable(&hdev->core);
	return ret;
}

static void vph_close_device(struct vfio_device *core_vdev)
{
	struct vph_device *hdev = vph_device(core_vdev);

	/* A reset that comes from elsewhere no longer finds BARs or handlers. */
	mutex_lock(&hdev->open_lock);
	WRITE_ONCE(hdev->open, false);
	mutex_unlock(&hdev->open_lock);
	/* From here on the worker touches nothing, and no request is waited for. */
	if (hdev->channel)
		vph_channel_close(hdev->channel);
	vph_migration_close(hdev);
	vph_chain_close(hdev);
	vfio_pci_core_close_device(core_vdev);
}

static int vph_init_dev(struct vfio_device *core_vdev)
{
	struct vph_device *hdev = vph_device(core_vdev);

	mutex_init(&hdev->open_lock);
	mutex_init(&hdev->log_lock);
	vph_migration_init(hdev);
	return vfio_pci_core_init_dev(core_vdev);
}

static void vph_release_dev(struct vfio_device *core_vdev)
{
	struct vph_device *hdev = vph_device(core_vdev);

	vph_chain_exit(hdev);
	vph_migration_exit(hdev);
	mutex_destroy(&hdev->log_lock);
	mutex_destroy(&hdev->open_lock);
	if (hdev->channel)
		vph_channel_put(hdev->channel);
	if (hdev->def)
		vph_definition_put(hdev->def);
	vfio_pci_core_release_dev(core_vdev);
}

static const struct vfio_device_ops vph_plain_ops = {
	VPH_OPS_COMMON
	.bind_iommufd	= vfio_iommufd_physical_bind,
	.unbind_iommufd	= vfio_iommufd_physical_unbind,
	.attach_ioas	= vfio_iommufd_physical_attach_ioas,
	.detach_ioas	= vfio_iommufd_physical_detach_ioas,
	.init		= vfio_pci_core_init_dev,
	.release	= vfio_pci_core_release_dev,
	.open_device	= vph_plain_open_device,
	.close_device	= vfio_pci_core_close_device,
	.ioctl		= vfio_pci_core_ioctl,
	VPH_OPS_REGION_INFO(vfio_pci_ioctl_get_region_info)
	.device_feature = vfio_pci_core_ioctl_feature,
	.read		= vfio_pci_core_read,
	.write		= vfio_pci_core_write,
	.mmap		= vfio_pci_core_mmap,
};

static const struct vfio_device_ops vph_ops = {
	VPH_OPS_COMMON
	.bind_iommufd	= vph_bind_iommufd,
	.unbind_iommufd	= vph_unbind_iommufd,
	.attach_ioas	= vph_attach_ioas,
	.detach_ioas	= vph_detach_ioas,
	.init		= vph_init_dev,
	.release	= vph_release_dev,
	.open_device	= vph_open_device,
	.close_device	= vph_close_device,
	.ioctl		= vph_ioctl,
	VPH_OPS_REGION_INFO(vph_get_region_info_caps)
	.device_feature = vph_device_feature,
	.read		= vph_read,
	.write		= vph_write,
	.mmap		= vph_mmap,
};

static int vph_set_up(struct vph_device *hdev)
{
	struct vph_definition *def = hdev->def;
	int ret;

	ret = vph_definition_fits(def);
	if (ret) {
		pci_notice(hdev->core.pdev, "the definition no longer fits the function: %d\n",
			   ret);
		return ret;
	}
	if (def->channel >= 0) {
		hdev->channel = vph_channel_create(def);
		if (!hdev->channel)
			return -ENOMEM;
	}
	if (vph_owns_migration(hdev)) {
		hdev->core.vdev.mig_ops = &vph_migration_ops;
		hdev->core.vdev.migration_flags = VFIO_MIGRATION_STOP_COPY |
						  VFIO_MIGRATION_P2P |
						  VFIO_MIGRATION_PRE_COPY;
		if (VPH_CAN_REPORT_DMA)
			hdev->core.vdev.log_ops = &vph_log_ops;
	}
	return vph_chain_init(hdev);
}

static int vph_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vph_definition *def;
	struct vph_device *hdev;
	int ret;

	def = vph_bind(pdev);
	if (IS_ERR(def))
		return PTR_ERR(def);

	hdev = vfio_alloc_device(vph_device, core.vdev, &pdev->dev,
				 def ? &vph_ops : &vph_plain_ops);
	if (IS_ERR(hdev)) {
		ret = PTR_ERR(hdev);
		if (def)
			vph_definition_put(def);
		goto out_unbind;
	}

	dev_set_drvdata(&pdev->dev, &hdev->core);
	vph_set_pci_ops(&hdev->core);
	if (def) {
		hdev->def = def;
		ret = vph_set_up(hdev);
		if (ret)
			goto out_put_vdev;
		ret = vph_sysfs_add(hdev);
		if (ret)
			goto out_put_vdev;
	}

	ret = vfio_pci_core_register_device(&hdev->core);
	if (ret)
		goto out_sysfs;

	if (def) {
		/* A chain that is bound keeps the module, open or not. */
		__module_get(THIS_MODULE);
		pci_info(pdev, "handlers: %u, trapped BARs: %s, migration: %s\n", hdev->nr_links,
			 str_yes_no(hdev->bars_trapped), str_yes_no(vph_owns_migration(hdev)));
	}
	vph_bound(hdev);
	return 0;

out_sysfs:
	vph_sysfs_remove(hdev);
out_put_vdev:
	vfio_put_device(&hdev->core.vdev);
out_unbind:
	vph_unbind(pdev);
	return ret;
}

static void vph_remove(struct pci_dev *pdev)
{
	struct vph_device *hdev = vph_drvdata(&pdev->dev);
	bool defined = hdev->def;

	vph_sysfs_remove(hdev);
	/* Waits for the VMM to close; until then the worker goes on serving it. */
	vfio_pci_core_unregister_device(&hdev->core);
	vph_unbound(hdev);
	if (hdev->channel)
		vph_channel_gone(hdev->channel);
	vfio_put_device(&hdev->core.vdev);
	vph_unbind(pdev);
	if (defined)
		module_put(THIS_MODULE);
}

/* The device was reset, or is so by its reset program alone. */
void vph_reset_done(struct vph_device *hdev)
{
	mutex_lock(&hdev->open_lock);
	if (!hdev->open) {
		mutex_unlock(&hdev->open_lock);
		return;
	}
	atomic64_inc(&hdev->resets);
	vph_program_run_reset(hdev);
	vph_chain_reset(hdev);
	mutex_unlock(&hdev->open_lock);

	if (hdev->channel)
		vph_channel_reset(hdev->channel);
	vph_migration_reset_done(hdev);
}

/*
 * Comes from vfio-pci-core with memory_lock held for writing, from sysfs and from
 * AER without, and from enabling the device before it is open.
 */
static void vph_pci_reset_done(struct pci_dev *pdev)
{
	struct vph_device *hdev = vph_drvdata(&pdev->dev);

	if (hdev->def)
		vph_reset_done(hdev);
}

static int vph_sriov_configure(struct pci_dev *pdev, int nr_virtfn)
{
	return vfio_pci_core_sriov_configure(&vph_drvdata(&pdev->dev)->core, nr_virtfn);
}

static const struct pci_error_handlers vph_err_handlers = {
	.reset_done	= vph_pci_reset_done,
	.error_detected	= vfio_pci_core_aer_err_detected,
};

static const struct pci_device_id vph_table[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_ANY_ID, PCI_ANY_ID) },
	{}
};
MODULE_DEVICE_TABLE(pci, vph_table);

static struct pci_driver vph_driver = {
	.name			= VPH_DRIVER_NAME,
	.id_table		= vph_table,
	.probe			= vph_probe,
	.remove			= vph_remove,
	.sriov_configure	= vph_sriov_configure,
	.err_handler		= &vph_err_handlers,
	.driver_managed_dma	= true,
};

static int __init vph_init(void)
{
	int ret;

	ret = vph_control_init();
	if (ret)
		return ret;

	ret = pci_register_driver(&vph_driver);
	if (ret)
		vph_control_exit();
	return ret;
}
module_init(vph_init);

static void __exit vph_exit(void)
{
	pci_unregister_driver(&vph_driver);
	vph_control_exit();
}
module_exit(vph_exit);

MODULE_LICENSE("GPL");
VPH_IMPORT_NS("IOMMUFD");
MODULE_AUTHOR("The Hookline authors");
MODULE_DESCRIPTION("VFIO PCI driver with a chain of handlers and migration by a userspace worker");
