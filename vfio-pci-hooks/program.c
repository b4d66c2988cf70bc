// SPDX-License-Identifier: GPL-2.0-only
/*
 * Register programs: short lists of register steps that stop, start and reset a
 * device with no worker at hand.
 */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

#include "compat.h"
#include "vfio_pci_hooks_priv.h"
#include "trace.h"

#define VPH_MAX_STEP_US		(100 * USEC_PER_MSEC)
#define VPH_MAX_PROGRAM_US	USEC_PER_SEC
#define VPH_POLL_US		50
/* What a FILL writes before others get the processor, and the lock: less than a millisecond. */
#define VPH_FILL_PIECE		SZ_64K

/* The host's interrupts: nobody but the kernel writes there. */
static bool vph_in_msix_table(struct pci_dev *pdev, unsigned int bar, u64 offset, u64 length)
{
	u32 table, start;
	u16 control;

	if (!pdev->msix_cap)
		return false;
	pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_TABLE, &table);
	pci_read_config_word(pdev, pdev->msix_cap + PCI_MSIX_FLAGS, &control);
	start = table & PCI_MSIX_TABLE_OFFSET;
	return bar == (table & PCI_MSIX_TABLE_BIR) && offset + length > start &&
	       offset < (u64)start + ((control & PCI_MSIX_FLAGS_QSIZE) + 1) * PCI_MSIX_ENTRY_SIZE;
}

static int vph_step_check(struct pci_dev *pdev, const struct vfio_pci_hooks_step *step,
			  bool may_wait)
{
	switch (step->op) {
	case VFIO_PCI_HOOKS_STEP_SAVE:
	case VFIO_PCI_HOOKS_STEP_RESTORE:
		if (step->slot >= VFIO_PCI_HOOKS_SAVED)
			return -EINVAL;
		fallthrough;
	case VFIO_PCI_HOOKS_STEP_WRITE:
	case VFIO_PCI_HOOKS_STEP_MODIFY:
		if (step->timeout_us)
			return -EINVAL;
		break;
	case VFIO_PCI_HOOKS_STEP_FILL:
		if (step->timeout_us || step->width != 4 || !step->mask || step->mask % 4)
			return -EINVAL;
		break;
	case VFIO_PCI_HOOKS_STEP_POLL:
	case VFIO_PCI_HOOKS_STEP_DELAY:
		if (!may_wait || step->timeout_us > VPH_MAX_STEP_US)
			return -EINVAL;
		if (step->op == VFIO_PCI_HOOKS_STEP_DELAY)
			return 0;
		break;
	default:
		return -EINVAL;
	}

	if (step->bar >= PCI_STD_NUM_BARS ||
	    !(pci_resource_flags(pdev, step->bar) & (IORESOURCE_MEM | IORESOURCE_IO)))
		return -EINVAL;
	if (step->width != 1 && step->width != 2 && step->width != 4)
		return -EINVAL;
	if (!IS_ALIGNED(step->offset, step->width) ||
	    (u64)step->offset + vph_step_length(step) > pci_resource_len(pdev, step->bar))
		return -EINVAL;
	if (step->op == VFIO_PCI_HOOKS_STEP_FILL &&
	    (!(pci_resource_flags(pdev, step->bar) & IORESOURCE_MEM) ||
	     vph_in_msix_table(pdev, step->bar, step->offset, step->mask)))
		return -EINVAL;
	return 0;
}

int vph_program_check(struct pci_dev *pdev, const struct vph_program *program, bool may_wait)
{
	u64 filled[PCI_STD_NUM_BARS] = {};
	unsigned int i;
	int ret;

	for (i = 0; program && i < program->nr; i++) {
		const struct vfio_pci_hooks_step *step = &program->steps[i];

		ret = vph_step_check(pdev, step, may_wait);
		/*
		 * The size of the BARs is all that bounds how long a program fills, so none
		 * does it twice: one posted store for each 8 bytes. A device for which that is
		 * too long needs a reset of its own.
		 */
		if (!ret && step->op == VFIO_PCI_HOOKS_STEP_FILL) {
			filled[step->bar] += step->mask;
			if (filled[step->bar] > pci_resource_len(pdev, step->bar))
				ret = -EINVAL;
		}
		if (ret) {
			pci_notice_ratelimited(pdev, "step %u of a program is not valid\n", i);
			return ret;
		}
	}
	return 0;
}

/* A FILL of no length goes on to the end of its BAR; the check refuses what 32 bits do not hold. */
static void vph_fill_to_end(struct pci_dev *pdev, struct vph_program *program)
{
	unsigned int i;

	for (i = 0; i < program->nr; i++) {
		struct vfio_pci_hooks_step *step = &program->steps[i];

		if (step->op == VFIO_PCI_HOOKS_STEP_FILL && !step->mask &&
		    step->bar < PCI_STD_NUM_BARS &&
		    step->offset < pci_resource_len(pdev, step->bar))
			step->mask = min_t(u64, pci_resource_len(pdev, step->bar) - step->offset,
					   U32_MAX);
	}
}

/* A checked copy of a program; NULL for an empty one. */
struct vph_program *vph_program_copy(struct pci_dev *pdev,
				     const struct vfio_pci_hooks_program *user, bool may_wait)
{
	struct vph_program *program;
	unsigned long us = 0;
	unsigned int i;
	int ret;

	if (user->reserved || user->nr_steps > VFIO_PCI_HOOKS_MAX_STEPS)
		return ERR_PTR(-EINVAL);
	if (!user->nr_steps)
		return NULL;

	program = kmalloc(struct_size(program, steps, user->nr_steps), GFP_KERNEL_ACCOUNT);
	if (!program)
		return ERR_PTR(-ENOMEM);
	program->nr = user->nr_steps;

	ret = -EFAULT;
	if (copy_from_user(program->steps, u64_to_user_ptr(user->steps),
			   flex_array_size(program, steps, program->nr)))
		goto out_free;

	vph_fill_to_end(pdev, program);
	ret = vph_program_check(pdev, program, may_wait);
	if (ret)
		goto out_free;
	for (i = 0; i < program->nr; i++)
		us += program->steps[i].timeout_us;
	ret = -EINVAL;
	if (us > VPH_MAX_PROGRAM_US)
		goto out_free;
	return program;

out_free:
	kfree(program);
	return ERR_PTR(ret);
}

static int vph_register(struct vph_device *hdev, const struct vfio_pci_hooks_step *step,
			u32 *value, bool write)
{
	u8 data[4];
	int ret;

	/* Registers are little-endian, vph_bar_unit() moves bytes in the device's order. */
	put_unaligned_le32(*value, data);
	ret = vph_bar_unit(hdev, step->bar, step->offset, step->width, data, write, true);
	if (ret || write)
		return ret;
	*value = get_unaligned_le32(data) & GENMASK(step->width * 8 - 1, 0);
	return 0;
}

static int vph_step_poll(struct vph_device *hdev, const struct vfio_pci_hooks_step *step)
{
	ktime_t end = ktime_add_us(ktime_get(), step->timeout_us);
	u32 value = 0;
	bool last;
	int ret;

	for (;;) {
		/* The clock first: after a long sleep the register gets one more look. */
		last = ktime_compare(ktime_get(), end) >= 0;
		ret = vph_register(hdev, step, &value, false);
		if (ret || (value & step->mask) == step->value)
			return ret;
		if (last)
			return -ETIMEDOUT;
		usleep_range(VPH_POLL_US / 2, VPH_POLL_US);
	}
}

static int vph_step_fill(struct vph_device *hdev, const struct vfio_pci_hooks_step *step)
{
	u32 at, length;
	int ret = 0;

	for (at = 0; !ret && at < step->mask; at += length) {
		length = min_t(u32, step->mask - at, VPH_FILL_PIECE);
		ret = vph_bar_fill(hdev, step->bar, (u64)step->offset + at, length, step->value);
		cond_resched();
	}
	return ret;
}

static int vph_step_run(struct vph_device *hdev, const struct vfio_pci_hooks_step *step)
{
	u32 *saved = hdev->mig.saved;
	u32 value = 0;
	int ret;

	switch (step->op) {
	case VFIO_PCI_HOOKS_STEP_WRITE:
		value = step->value;
		return vph_register(hdev, step, &value, true);
	case VFIO_PCI_HOOKS_STEP_MODIFY:
		ret = vph_register(hdev, step, &value, false);
		if (ret)
			return ret;
		value = (value & ~step->mask) | (step->value & step->mask);
		return vph_register(hdev, step, &value, true);
	case VFIO_PCI_HOOKS_STEP_SAVE:
		return vph_register(hdev, step, &saved[step->slot], false);
	case VFIO_PCI_HOOKS_STEP_RESTORE:
		return vph_register(hdev, step, &saved[step->slot], true);
	case VFIO_PCI_HOOKS_STEP_POLL:
		return vph_step_poll(hdev, step);
	case VFIO_PCI_HOOKS_STEP_FILL:
		return vph_step_fill(hdev, step);
	case VFIO_PCI_HOOKS_STEP_DELAY:
		fsleep(step->timeout_us);
		return 0;
	}
	return -EINVAL;
}

/* The stop or start program. Takes memory_lock for each access. */
int vph_program_run(struct vph_device *hdev, const char *what, const struct vph_program *program)
{
	struct pci_dev *pdev = hdev->core.pdev;
	unsigned int i;
	int ret = 0;

	lockdep_assert_held(&hdev->mig.state_mutex);
	if (!program)
		return 0;

	for (i = 0; i < program->nr && !ret; i++)
		ret = vph_step_run(hdev, &program->steps[i]);
	if (ret)
		pci_notice_ratelimited(pdev, "%s program failed at step %u: %d\n", what, i - 1,
				       ret);
	trace_program(pdev, what, i, ret);
	return ret;
}

static u32 vph_raw_read(void __iomem *io, unsigned int width)
{
	switch (width) {
	case 1:
		return ioread8(io);
	case 2:
		return ioread16(io);
	default:
		return ioread32(io);
	}
}

static void vph_raw_write(void __iomem *io, unsigned int width, u32 value)
{
	switch (width) {
	case 1:
		iowrite8(value, io);
		break;
	case 2:
		iowrite16(value, io);
		break;
	default:
		iowrite32(value, io);
	}
}

static void vph_raw_fill(void __iomem *io, const struct vfio_pci_hooks_step *step)
{
	u32 at, length;

	for (at = 0; at < step->mask; at += length) {
		length = min_t(u32, step->mask - at, VPH_FILL_PIECE);
		vph_fill_words(io + at, length, step->value);
		cond_resched();
	}
}

/*
 * The reset program. Whether memory_lock is held depends on who resets, so this
 * takes no lock, and it has no waits: a reset must always succeed, and soon.
 */
void vph_program_run_reset(struct vph_device *hdev)
{
	const struct vph_program *program = hdev->def->reset;
	struct pci_dev *pdev = hdev->core.pdev;
	u32 saved[VFIO_PCI_HOOKS_SAVED] = {};
	unsigned int i;
	u16 command;

	lockdep_assert_held(&hdev->open_lock);
	if (!program)
		return;

	pci_read_config_word(pdev, PCI_COMMAND, &command);
	pci_write_config_word(pdev, PCI_COMMAND, command | PCI_COMMAND_MEMORY | PCI_COMMAND_IO);

	for (i = 0; i < program->nr; i++) {
		const struct vfio_pci_hooks_step *step = &program->steps[i];
		void __iomem *io = vph_iomap_made(&hdev->core, step->bar);
		u32 value;

		if (!io)
			break;
		io += step->offset;

		switch (step->op) {
		case VFIO_PCI_HOOKS_STEP_WRITE:
			vph_raw_write(io, step->width, step->value);
			break;
		case VFIO_PCI_HOOKS_STEP_MODIFY:
			value = vph_raw_read(io, step->width);
			value = (value & ~step->mask) | (step->value & step->mask);
			vph_raw_write(io, step->width, value);
			break;
		case VFIO_PCI_HOOKS_STEP_SAVE:
			saved[step->slot] = vph_raw_read(io, step->width);
			break;
		case VFIO_PCI_HOOKS_STEP_RESTORE:
			vph_raw_write(io, step->width, saved[step->slot]);
			break;
		case VFIO_PCI_HOOKS_STEP_FILL:
			vph_raw_fill(io, step);
			break;
		}
	}

	pci_write_config_word(pdev, PCI_COMMAND, command);
	trace_program(pdev, "reset", i, i < program->nr ? -ENXIO : 0);
}
