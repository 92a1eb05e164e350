"""Local descriptors: HardNet and RALNet, plain, with self-attention, with compressed self-attention.

Each trains on the photographs inside the scikit-image wheel unless `--data photos:FOLDER` names others. Its brown_ twin is
the paper's own setting on Brown / UBC PhotoTour (Table 7): 10 epochs of 5,000,000 pairs, a rate of 10 falling linearly to 0.
"""

from csametric.data.brown import BrownSettings
from csametric.runs.experiment import BrownExperiment, DescriptorExperiment, DescriptorOptimizer, DescriptorSettings

PAPER_RATES = DescriptorOptimizer(lr=10.0)


def hardnet() -> DescriptorExperiment:
    """HardNet: L2Net without attention, hardest negatives of the batch.

    Command: csametric train hardnet
    """
    return DescriptorExperiment(recipe="hardnet")


def hardnet_sa() -> DescriptorExperiment:
    """HardNet + SA: self-attention after the third convolution.

    Command: csametric train hardnet_sa
    """
    return DescriptorExperiment(recipe="hardnet_sa", model=DescriptorSettings(attention="sa"))


def hardnet_csa() -> DescriptorExperiment:
    """HardNet + CSA: compressed self-attention after the third convolution, 32 maps, no groups.

    Command: csametric train hardnet_csa
    """
    return DescriptorExperiment(recipe="hardnet_csa", model=DescriptorSettings(attention="csa"))


def ralnet() -> DescriptorExperiment:
    """RALNet: the robust angular loss on the network of HardNet.

    Command: csametric train ralnet
    """
    return DescriptorExperiment(recipe="ralnet", loss="ral")


def ralnet_sa() -> DescriptorExperiment:
    """RALNet + SA: self-attention after the third convolution.

    Command: csametric train ralnet_sa
    """
    return DescriptorExperiment(recipe="ralnet_sa", loss="ral", model=DescriptorSettings(attention="sa"))


def ralnet_csa() -> DescriptorExperiment:
    """RALNet + CSA: compressed self-attention after the third convolution, 32 maps, no groups.

    Command: csametric train ralnet_csa
    """
    return DescriptorExperiment(recipe="ralnet_csa", loss="ral", model=DescriptorSettings(attention="csa"))


def sosnet() -> DescriptorExperiment:
    """SOSNet: a squared hinge and second-order similarity on the network of HardNet.

    Command: csametric train sosnet
    """
    return DescriptorExperiment(recipe="sosnet", loss="sos")


def sosnet_csa() -> DescriptorExperiment:
    """SOSNet + CSA: compressed self-attention after the third convolution, 32 maps, no groups, at a third of its rates.

    Command: csametric train sosnet_csa. At HardNet's rates alpha runs away in one seed of three (docs/EXPERIMENTS.md).
    """
    model, optimizer = DescriptorSettings(attention="csa"), DescriptorOptimizer(attention_lr=3.0, alpha_lr=10.0)
    return DescriptorExperiment(recipe="sosnet_csa", loss="sos", model=model, optimizer=optimizer)


def brown_hardnet() -> BrownExperiment:
    """HardNet on Brown as the paper sets it: batches of 1024 pairs, patches reduced by area.

    Command: csametric train brown_hardnet --data brown:ROOT --set data.train=liberty. Paper: mean FPR95 1.51 % (Table 7).
    """
    return _brown_hardnet("brown_hardnet", DescriptorSettings())


def brown_hardnet_sa() -> BrownExperiment:
    """HardNet + SA on Brown as the paper sets it.

    Command: csametric train brown_hardnet_sa --data brown:ROOT. Paper: mean FPR95 1.13 % (Table 7).
    """
    return _brown_hardnet("brown_hardnet_sa", DescriptorSettings(attention="sa"))


def brown_hardnet_csa() -> BrownExperiment:
    """HardNet + CSA on Brown as the paper sets it.

    Command: csametric train brown_hardnet_csa --data brown:ROOT. Paper: mean FPR95 1.13 % (Table 7).
    """
    return _brown_hardnet("brown_hardnet_csa", DescriptorSettings(attention="csa"))


def brown_ralnet() -> BrownExperiment:
    """RALNet on Brown as the paper sets it: batches of 512 pairs, patches reduced by cubic interpolation.

    Command: csametric train brown_ralnet --data brown:ROOT. Paper: mean FPR95 1.26 % (Table 7).
    """
    return _brown_ralnet("brown_ralnet", DescriptorSettings())


def brown_ralnet_sa() -> BrownExperiment:
    """RALNet + SA on Brown as the paper sets it.

    Command: csametric train brown_ralnet_sa --data brown:ROOT. Paper: mean FPR95 1.09 % (Table 7).
    """
    return _brown_ralnet("brown_ralnet_sa", DescriptorSettings(attention="sa"))


def brown_ralnet_csa() -> BrownExperiment:
    """RALNet + CSA on Brown as the paper sets it.

    Command: csametric train brown_ralnet_csa --data brown:ROOT. Paper: mean FPR95 1.10 % (Table 7).
    """
    return _brown_ralnet("brown_ralnet_csa", DescriptorSettings(attention="csa"))


def _brown_hardnet(recipe: str, model: DescriptorSettings) -> BrownExperiment:
    return BrownExperiment(recipe=recipe, batch_size=1024, model=model, optimizer=PAPER_RATES)


def _brown_ralnet(recipe: str, model: DescriptorSettings) -> BrownExperiment:
    data = BrownSettings(resampling="cubic")
    return BrownExperiment(recipe=recipe, loss="ral", model=model, optimizer=PAPER_RATES, data=data)
