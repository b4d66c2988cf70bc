// SPDX-License-Identifier: GPL-2.0-only
/*
 * Migration protocol v2: the states, their arcs, and resets in between.
 *
 * No arc waits for a worker. Stopping and starting are register programs, and what
 * goes wrong with saving is told by read(), never by an arc: a VMM whose arc fails
 * resets the device under its guest.
 */
#include <linux/cleanup.h>
#include <linux/file.h>
#include <linux/slab.h>

#include "vfio_pci_hooks_priv.h"
#include "trace.h"

static void vph_end_file(struct vph_data_file **fp, int error)
{
	if (*fp)
		vph_data_file_end(*fp, error);
	*fp = NULL;
}

static void vph_drop_start_once(struct vph_migration *mig)
{
	kfree(mig->start_once);
	mig->start_once = NULL;
}

static void vph_enter_state(struct vph_device *hdev, enum vfio_device_mig_state to)
{
	enum vfio_device_mig_state from = hdev->mig.state;

	lockdep_assert_held(&hdev->mig.state_mutex);
	WRITE_ONCE(hdev->mig.state, to);
	vph_channel_state(hdev->channel, from, to);
	vph_chain_state(hdev, from, to);
}

/* ------------------------------------------------------------------------ arcs */

/* A device that its guest has put to sleep is stopped, and has no registers. */
static bool vph_is_asleep(struct vph_device *hdev)
{
	bool asleep;

	down_read(&hdev->core.memory_lock);
	asleep = hdev->core.pdev->current_state != PCI_D0;
	up_read(&hdev->core.memory_lock);
	return asleep;
}

/*
 * By the specification a VF has no memory enable, and vfio-pci asks for none. An
 * emulated VF may have one all the same, which VMMs switch off until the config space
 * has been loaded: then what is restored before would go nowhere.
 */
static void vph_enable_vf_memory(struct vph_device *hdev)
{
	struct pci_dev *pdev = hdev->core.pdev;
	u16 command;

	if (!pdev->is_virtfn)
		return;
	down_write(&hdev->core.memory_lock);
	if (pdev->current_state == PCI_D0) {
		pci_read_config_word(pdev, PCI_COMMAND, &command);
		if (!(command & PCI_COMMAND_MEMORY))
			pci_write_config_word(pdev, PCI_COMMAND, command | PCI_COMMAND_MEMORY);
	}
	up_write(&hdev->core.memory_lock);
}

static struct file *vph_stop(struct vph_device *hdev)
{
	hdev->mig.asleep = vph_is_asleep(hdev);
	if (hdev->mig.asleep)
		return NULL;
	vph_enable_vf_memory(hdev);
	return ERR_PTR(vph_program_run(hdev, "stop", hdev->def->stop));
}

static struct file *vph_start(struct vph_device *hdev)
{
	struct vph_migration *mig = &hdev->mig;
	int ret;

	if (mig->asleep && !mig->start_once)
		return NULL;
	vph_enable_vf_memory(hdev);
	ret = vph_program_run(hdev, "start", mig->start_once ?: hdev->def->start);
	if (!ret)
		vph_drop_start_once(mig);
	return ERR_PTR(ret);
}

static struct file *vph_begin_precopy(struct vph_device *hdev)
{
	if (vph_channel_incomplete(hdev->channel)) {
		pci_info_ratelimited(hdev->core.pdev,
				     "no migration: an access passed with no worker; the guest has to reset the device first\n");
		return ERR_PTR(-ENODATA);
	}
	return vph_data_file_create(hdev, false, true, &hdev->mig.saving);
}

static struct file *vph_end_resuming(struct vph_device *hdev)
{
	bool loaded = vph_data_file_loaded(hdev->mig.loading);

	vph_end_file(&hdev->mig.loading, -ENODEV);
	if (loaded)
		return NULL;
	pci_info_ratelimited(hdev->core.pdev, "the device state was not loaded to its end\n");
	/* What the device is now, nobody knows. */
	vph_enter_state(hdev, VFIO_DEVICE_STATE_ERROR);
	return ERR_PTR(-EINVAL);
}

#define VPH_ARC(from, to)	((VFIO_DEVICE_STATE_##from) << 8 | (VFIO_DEVICE_STATE_##to))

static struct file *vph_step(struct vph_device *hdev, enum vfio_device_mig_state to)
{
	struct vph_migration *mig = &hdev->mig;

	switch (mig->state << 8 | to) {
	case VPH_ARC(RUNNING, RUNNING_P2P):
	case VPH_ARC(PRE_COPY, PRE_COPY_P2P):
		return vph_stop(hdev);

	case VPH_ARC(RUNNING_P2P, RUNNING):
	case VPH_ARC(PRE_COPY_P2P, PRE_COPY):
		return vph_start(hdev);

	/* The stop program has stopped everything already. */
	case VPH_ARC(RUNNING_P2P, STOP):
	case VPH_ARC(STOP, RUNNING_P2P):
		return NULL;

	case VPH_ARC(RUNNING, PRE_COPY):
	case VPH_ARC(RUNNING_P2P, PRE_COPY_P2P):
		return vph_begin_precopy(hdev);

	case VPH_ARC(PRE_COPY_P2P, STOP_COPY):
		vph_data_file_final(mig->saving);
		return NULL;

	case VPH_ARC(STOP, STOP_COPY):
		return vph_data_file_create(hdev, false, false, &mig->saving);

	case VPH_ARC(PRE_COPY, RUNNING):
	case VPH_ARC(PRE_COPY_P2P, RUNNING_P2P):
	case VPH_ARC(STOP_COPY, STOP):
		vph_end_file(&mig->saving, -ENODEV);
		return NULL;

	case VPH_ARC(STOP, RESUMING):
		mig->values_taken = false;
		return vph_data_file_create(hdev, true, false, &mig->loading);

	case VPH_ARC(RESUMING, STOP):
		return vph_end_resuming(hdev);
	}

	/* vfio_mig_get_next_state() takes no other arcs. */
	WARN_ON(true);
	return ERR_PTR(-EINVAL);
}

/* ----------------------------------------------------------------------- resets */

static void vph_migration_reset_locked(struct vph_device *hdev)
{
	struct vph_migration *mig = &hdev->mig;

	vph_end_file(&mig->saving, -ECANCELED);
	vph_end_file(&mig->loading, -ECANCELED);
	vph_drop_start_once(mig);
	memset(mig->saved, 0, sizeof(mig->saved));
	if (mig->state != VFIO_DEVICE_STATE_RUNNING)
		vph_enter_state(hdev, VFIO_DEVICE_STATE_RUNNING);
}

/* Unlocks, and first does what a reset could not wait to do. */
static void vph_state_unlock(struct vph_device *hdev)
{
	struct vph_migration *mig = &hdev->mig;

again:
	spin_lock(&mig->reset_lock);
	if (mig->deferred_reset) {
		mig->deferred_reset = false;
		spin_unlock(&mig->reset_lock);
		vph_migration_reset_locked(hdev);
		goto again;
	}
	mutex_unlock(&mig->state_mutex);
	spin_unlock(&mig->reset_lock);
}

/*
 * A reset may come with memory_lock held, which is taken inside state_mutex
 * elsewhere. So whoever has state_mutex finishes the reset on its behalf.
 */
void vph_migration_reset_done(struct vph_device *hdev)
{
	struct vph_migration *mig = &hdev->mig;

	if (!vph_owns_migration(hdev))
		return;
	spin_lock(&mig->reset_lock);
	mig->deferred_reset = true;
	if (!mutex_trylock(&mig->state_mutex)) {
		spin_unlock(&mig->reset_lock);
		return;
	}
	spin_unlock(&mig->reset_lock);
	vph_state_unlock(hdev);
}

/* ------------------------------------------------------------------- operations */

/*
 * vfio_mig_get_next_state() without the arcs that lead nowhere: for those, kernels
 * before 6.12.107 never return.
 */
static int vph_next_state(struct vfio_device *core_vdev, enum vfio_device_mig_state from,
			  enum vfio_device_mig_state to, enum vfio_device_mig_state *next)
{
	/* Only a reset leads out. */
	if (from == VFIO_DEVICE_STATE_ERROR)
		return -EIO;
	if (from == VFIO_DEVICE_STATE_STOP_COPY &&
	    (to == VFIO_DEVICE_STATE_PRE_COPY || to == VFIO_DEVICE_STATE_PRE_COPY_P2P))
		return -EINVAL;
	return vfio_mig_get_next_state(core_vdev, from, to, next);
}

static struct file *vph_set_state(struct vfio_device *core_vdev, enum vfio_device_mig_state to)
{
	struct vph_device *hdev = vph_device(core_vdev);
	struct vph_migration *mig = &hdev->mig;
	enum vfio_device_mig_state next;
	struct file *res = NULL;
	int ret;

	if (to == VFIO_DEVICE_STATE_ERROR)
		return ERR_PTR(-EINVAL);

	mutex_lock(&mig->state_mutex);
	while (to != mig->state) {
		enum vfio_device_mig_state from = mig->state;
		ktime_t begin = ktime_get();

		ret = vph_next_state(core_vdev, from, to, &next);
		if (ret) {
			res = ERR_PTR(ret);
			break;
		}
		res = vph_step(hdev, next);
		trace_state(hdev->core.pdev, from, next, PTR_ERR_OR_ZERO(res),
			    ktime_us_delta(ktime_get(), begin));
		if (IS_ERR(res))
			break;
		vph_enter_state(hdev, next);
		if (WARN_ON(res && to != mig->state)) {
			fput(res);
			res = ERR_PTR(-EINVAL);
			break;
		}
	}
	vph_state_unlock(hdev);
	return res;
}

static int vph_get_state(struct vfio_device *core_vdev, enum vfio_device_mig_state *state)
{
	struct vph_device *hdev = vph_device(core_vdev);

	mutex_lock(&hdev->mig.state_mutex);
	*state = hdev->mig.state;
	vph_state_unlock(hdev);
	return 0;
}

/*
 * Never 0, which VMMs take for an error, and an upper bound of what is to come. It
 * falls with PRE_COPY: of what the worker said before the stream, the initial bytes
 * give way to what is left of them now and what has changed, with a sixteenth for
 * framing.
 */
static int vph_get_data_size(struct vfio_device *core_vdev, unsigned long *length)
{
	struct vph_device *hdev = vph_device(core_vdev);
	struct vph_channel *ch = hdev->channel;
	u64 unread = 0, size, initial, left;

	mutex_lock(&ch->lock);
	size = ch->stop_copy_bytes ?: ch->def->max_state;
	initial = min(ch->initial_bytes, size);
	mutex_unlock(&ch->lock);

	mutex_lock(&hdev->mig.state_mutex);
	if (hdev->mig.saving) {
		vph_data_file_left(hdev->mig.saving, &unread, &left);
		if (left < initial)
			size = min(size, size - initial + left + left / 16);
	}
	vph_state_unlock(hdev);
	*length = max_t(u64, size, SZ_1M) + unread;
	return 0;
}

const struct vfio_migration_ops vph_migration_ops = {
	.migration_set_state = vph_set_state,
	.migration_get_state = vph_get_state,
	.migration_get_data_size = vph_get_data_size,
};

/* The worker's start program for the device that it restores. Takes over program. */
int vph_migration_start_once(struct vph_device *hdev, struct vph_program *program)
{
	struct vph_migration *mig = &hdev->mig;
	int ret = -EBUSY;

	mutex_lock(&mig->state_mutex);
	if (mig->state == VFIO_DEVICE_STATE_RESUMING) {
		vph_drop_start_once(mig);
		mig->start_once = program;
		ret = 0;
	}
	vph_state_unlock(hdev);
	return ret;
}

/* The values of the source, which the device takes over. */
int vph_migration_set_parameters(struct vph_device *hdev,
				 char (*values)[VFIO_PCI_HOOKS_VALUE_LEN])
{
	struct vph_migration *mig = &hdev->mig;
	int ret = -EBUSY;

	mutex_lock(&mig->state_mutex);
	if (mig->state == VFIO_DEVICE_STATE_RESUMING && !mig->values_taken) {
		ret = vph_parameters_set(hdev->channel, values);
		mig->values_taken = !ret;
	}
	vph_state_unlock(hdev);
	return ret;
}

void vph_migration_saved(struct vph_device *hdev, u32 *value)
{
	mutex_lock(&hdev->mig.state_mutex);
	memcpy(value, hdev->mig.saved, sizeof(hdev->mig.saved));
	vph_state_unlock(hdev);
}

/*
 * The reset program on a device that refused this file, unless a reset was quicker:
 * then a guest may run on it already.
 */
void vph_migration_scrub(struct vph_device *hdev, const struct vph_data_file *file)
{
	struct vph_migration *mig = &hdev->mig;

	mutex_lock(&mig->state_mutex);
	down_write(&hdev->core.memory_lock);
	if (mig->loading == file && !vph_data_file_dead(file) &&
	    hdev->core.pdev->current_state == PCI_D0) {
		mutex_lock(&hdev->open_lock);
		vph_program_run_reset(hdev);
		mutex_unlock(&hdev->open_lock);
	}
	up_write(&hdev->core.memory_lock);
	vph_state_unlock(hdev);
}

/* -------------------------------------------------------------------- life cycle */

void vph_migration_init(struct vph_device *hdev)
{
	mutex_init(&hdev->mig.state_mutex);
	spin_lock_init(&hdev->mig.reset_lock);
	hdev->mig.state = VFIO_DEVICE_STATE_RUNNING;
}

void vph_migration_exit(struct vph_device *hdev)
{
	mutex_destroy(&hdev->mig.state_mutex);
}

/* The reset that enabling and closing do leads to RUNNING, whatever was before. */
static void vph_migration_clear(struct vph_device *hdev, int error)
{
	struct vph_migration *mig = &hdev->mig;

	mutex_lock(&mig->state_mutex);
	vph_end_file(&mig->saving, error);
	vph_end_file(&mig->loading, error);
	vph_drop_start_once(mig);
	memset(mig->saved, 0, sizeof(mig->saved));
	WRITE_ONCE(mig->state, VFIO_DEVICE_STATE_RUNNING);
	spin_lock(&mig->reset_lock);
	mig->deferred_reset = false;
	mutex_unlock(&mig->state_mutex);
	spin_unlock(&mig->reset_lock);
}

void vph_migration_open(struct vph_device *hdev)
{
	vph_migration_clear(hdev, -ENODEV);
}

void vph_migration_close(struct vph_device *hdev)
{
	vph_migration_clear(hdev, -ENODEV);
}
