"""Local descriptors: HardNet and RALNet, plain, with self-attention, with compressed self-attention.

Each trains on the photographs inside the scikit-image wheel unless `--data photos:FOLDER` names others.
"""

from csametric.training.experiment import DescriptorSettings, Experiment


def hardnet() -> Experiment:
    """HardNet: L2Net without attention, hardest negatives of the batch.

    Command: csametric train hardnet
    """
    return Experiment(recipe="hardnet")


def hardnet_sa() -> Experiment:
    """HardNet + SA: self-attention after the third convolution.

    Command: csametric train hardnet_sa
    """
    return Experiment(recipe="hardnet_sa", model=DescriptorSettings(attention="sa"))


def hardnet_csa() -> Experiment:
    """HardNet + CSA: compressed self-attention after the third convolution, 32 maps, no groups.

    Command: csametric train hardnet_csa
    """
    return Experiment(recipe="hardnet_csa", model=DescriptorSettings(attention="csa"))


def ralnet() -> Experiment:
    """RALNet: the robust angular loss on the network of HardNet.

    Command: csametric train ralnet
    """
    return Experiment(recipe="ralnet", loss="ral")


def ralnet_sa() -> Experiment:
    """RALNet + SA: self-attention after the third convolution.

    Command: csametric train ralnet_sa
    """
    return Experiment(recipe="ralnet_sa", loss="ral", model=DescriptorSettings(attention="sa"))


def ralnet_csa() -> Experiment:
    """RALNet + CSA: compressed self-attention after the third convolution, 32 maps, no groups.

    Command: csametric train ralnet_csa
    """
    return Experiment(recipe="ralnet_csa", loss="ral", model=DescriptorSettings(attention="csa"))
