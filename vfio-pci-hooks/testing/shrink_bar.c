// SPDX-License-Identifier: GPL-2.0-only
/*
 * For tests: as long as it is loaded, a BAR of a function seems to have been resized.
 * The function must have no driver meanwhile that uses what is missing.
 */
#include <linux/module.h>
#include <linux/pci.h>

static char *function;
module_param(function, charp, 0);
MODULE_PARM_DESC(function, "its address, as in 0000:01:10.0");

static int bar;
module_param(bar, int, 0);
MODULE_PARM_DESC(bar, "number of the BAR");

static int size;
module_param(size, int, 0);
MODULE_PARM_DESC(size, "bytes that it seems to have");

static struct pci_dev *pdev;
static resource_size_t end;

static int __init shrink_bar_init(void)
{
	unsigned int domain, bus, slot, fn;

	if (!function || sscanf(function, "%x:%x:%x.%x", &domain, &bus, &slot, &fn) != 4 ||
	    bar < 0 || bar >= PCI_STD_NUM_BARS || size <= 0)
		return -EINVAL;
	pdev = pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, fn));
	if (!pdev)
		return -ENODEV;
	end = pci_resource_end(pdev, bar);
	pdev->resource[bar].end = pci_resource_start(pdev, bar) + size - 1;
	return 0;
}
module_init(shrink_bar_init);

static void __exit shrink_bar_exit(void)
{
	pdev->resource[bar].end = end;
	pci_dev_put(pdev);
}
module_exit(shrink_bar_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Hookline authors");
MODULE_DESCRIPTION("Test of vfio-pci-hooks: a BAR that has been resized");
