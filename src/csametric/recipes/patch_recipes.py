"""Local descriptors: HardNet and RALNet, plain, with self-attention, with compressed self-attention.

Recipes train on the photographs in the scikit-image package unless `--data photos:FOLDER` names others. The brown_
recipes are the paper's setting on Brown / UBC PhotoTour (Table 7): 10 epochs of 5,000,000 pairs, a learning rate of 10 that
falls linearly to 0.
"""

from csametric.data.brown import BrownSettings
from csametric.recipes.recipe import recipe
from csametric.runs.experiment import BrownExperiment, DescriptorExperiment, DescriptorOptimizer, DescriptorSettings

PAPER_RATES = DescriptorOptimizer(lr=10.0)


@recipe
def hardnet() -> DescriptorExperiment:
    """HardNet: the network L2Net, trained with the hardest negative in the batch.

    Command: csametric train hardnet
    """
    return DescriptorExperiment()


@recipe
def hardnet_sa() -> DescriptorExperiment:
    """HardNet + SA: self-attention after the third convolution.

    Command: csametric train hardnet_sa
    """
    return DescriptorExperiment(model=DescriptorSettings(attention="sa"))


@recipe
def hardnet_csa() -> DescriptorExperiment:
    """HardNet + CSA: compressed self-attention after the third convolution, 32 maps, no groups.

    Command: csametric train hardnet_csa
    """
    return DescriptorExperiment(model=DescriptorSettings(attention="csa"))


@recipe
def ralnet() -> DescriptorExperiment:
    """RALNet: HardNet's network, trained with the robust angular loss.

    Command: csametric train ralnet
    """
    return DescriptorExperiment(loss="ral")


@recipe
def ralnet_sa() -> DescriptorExperiment:
    """RALNet + SA: self-attention after the third convolution.

    Command: csametric train ralnet_sa
    """
    return DescriptorExperiment(loss="ral", model=DescriptorSettings(attention="sa"))


@recipe
def ralnet_csa() -> DescriptorExperiment:
    """RALNet + CSA: compressed self-attention after the third convolution, 32 maps, no groups.

    Command: csametric train ralnet_csa
    """
    return DescriptorExperiment(loss="ral", model=DescriptorSettings(attention="csa"))


@recipe
def sosnet() -> DescriptorExperiment:
    """SOSNet: HardNet's network, trained with a squared hinge loss and second-order similarity.

    Command: csametric train sosnet
    """
    return DescriptorExperiment(loss="sos")


@recipe
def sosnet_csa() -> DescriptorExperiment:
    """SOSNet + CSA: compressed self-attention after the third convolution, at lower attention learning rates.

    Command: csametric train sosnet_csa. At HardNet's rates alpha runs away in one seed of three (docs/EXPERIMENTS.md).
    """
    model, optimizer = DescriptorSettings(attention="csa"), DescriptorOptimizer(attention_lr=3.0, alpha_lr=10.0)
    return DescriptorExperiment(loss="sos", model=model, optimizer=optimizer)


@recipe
def brown_hardnet() -> BrownExperiment:
    """HardNet on Brown as in the paper: batches of 1024 pairs, patches reduced by area.

    Command: csametric train brown_hardnet --data brown:ROOT --set data.train=liberty. Paper: mean FPR95 1.51 % (Table 7).
    """
    return _brown_hardnet(DescriptorSettings())


@recipe
def brown_hardnet_sa() -> BrownExperiment:
    """HardNet + SA on Brown as in the paper.

    Command: csametric train brown_hardnet_sa --data brown:ROOT. Paper: mean FPR95 1.13 % (Table 7).
    """
    return _brown_hardnet(DescriptorSettings(attention="sa"))


@recipe
def brown_hardnet_csa() -> BrownExperiment:
    """HardNet + CSA on Brown as in the paper.

    Command: csametric train brown_hardnet_csa --data brown:ROOT. Paper: mean FPR95 1.13 % (Table 7).
    """
    return _brown_hardnet(DescriptorSettings(attention="csa"))


@recipe
def brown_ralnet() -> BrownExperiment:
    """RALNet on Brown as in the paper: batches of 512 pairs, patches reduced by cubic interpolation.

    Command: csametric train brown_ralnet --data brown:ROOT. Paper: mean FPR95 1.26 % (Table 7).
    """
    return _brown_ralnet(DescriptorSettings())


@recipe
def brown_ralnet_sa() -> BrownExperiment:
    """RALNet + SA on Brown as in the paper.

    Command: csametric train brown_ralnet_sa --data brown:ROOT. Paper: mean FPR95 1.09 % (Table 7).
    """
    return _brown_ralnet(DescriptorSettings(attention="sa"))


@recipe
def brown_ralnet_csa() -> BrownExperiment:
    """RALNet + CSA on Brown as in the paper.

    Command: csametric train brown_ralnet_csa --data brown:ROOT. Paper: mean FPR95 1.10 % (Table 7).
    """
    return _brown_ralnet(DescriptorSettings(attention="csa"))


def _brown_hardnet(model: DescriptorSettings) -> BrownExperiment:
    return BrownExperiment(batch_size=1024, model=model, optimizer=PAPER_RATES)


def _brown_ralnet(model: DescriptorSettings) -> BrownExperiment:
    data = BrownSettings(resampling="cubic")
    return BrownExperiment(loss="ral", model=model, optimizer=PAPER_RATES, data=data)
