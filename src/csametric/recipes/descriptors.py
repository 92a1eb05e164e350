"""Local descriptors: HardNet and RALNet, plain, with self-attention, with compressed self-attention.

Each trains on the photographs inside the scikit-image wheel unless `--data photos:FOLDER` names others.
"""

from csametric.training.experiment import DescriptorExperiment, DescriptorSettings


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
